"""A trainer that closes its publisher says so: its silence is no trouble."""

import logging
import time

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import EkkoError
from ekko.schemas.signals import ENDED, TRAINER, Signal
from ekko.streams.log import Cluster, Output, Partition

_log = logging.getLogger("ekko.publisher")

_TIMEOUT_S = 2.0


def say_farewell(cluster: Cluster, model: str, trainer: str) -> None:
    """Tell the monitor that `trainer` publishes no more. Never fails, and waits two seconds at most."""
    signal = Signal(model, "", TRAINER + trainer, ENDED, 1.0, 1, int(time.time() * 1e6))
    try:
        writer = cluster.writer()
        try:
            writer.send(Output(Partition(topics.signals(model), 0), encode(signal)))
            told = not writer.flush(_TIMEOUT_S)
        finally:
            writer.close()
    except EkkoError as error:
        told = False
        _log.debug("model %s: %s", model, error)
    if not told:
        _log.warning("model %s: the monitor may call trainer %s silent: it is not told of its end", model, trainer)
