"""What the publisher refuses for its values is told to the monitor: a trainer that makes NaN has gone bad."""

import logging
import time
from collections.abc import Callable

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import EkkoError
from ekko.schemas.signals import OUT_OF_RANGE, Signal
from ekko.streams.log import Cluster, Output, Partition, Writer

_log = logging.getLogger("ekko.publisher")

_EVERY_S = 1.0


class Refusals:
    """Counts rows refused for their values, and reports them once a second at most. Never fails, never waits.

    Args:
        cluster: where to; nothing is opened before something is refused.
        source: of the signals, as in 'trainer/trainer-7'.
        clock: seconds since 1970.
    """

    def __init__(self, cluster: Cluster, model: str, source: str, clock: Callable[[], float] = time.time) -> None:
        self._cluster, self._model, self._source, self._clock = cluster, model, source, clock
        self._writer: Writer | None = None
        self._rows = 0
        self._due_s = 0.0

    def add(self, rows: int) -> None:
        """So many rows more were refused."""
        self._rows += rows
        if self._clock() >= self._due_s:
            self._report()

    def close(self) -> None:
        """Report what is left and release the connection."""
        if self._rows:
            self._report()
        if self._writer is not None:
            self._writer.close()

    def _report(self) -> None:
        now_s = self._clock()
        rows, now_us = self._rows, int(now_s * 1e6)
        signal = Signal(self._model, "", self._source, OUT_OF_RANGE, float(rows), rows, now_us)
        self._due_s = now_s + _EVERY_S
        try:
            if self._writer is None:
                self._writer = self._cluster.writer()
            self._writer.send(Output(Partition(topics.signals(self._model), 0), encode(signal)))
            self._writer.poll(0.0)
        except EkkoError as error:
            _log.warning("the monitor is not told of %d refused rows: %s", self._rows, error)
        self._rows = 0
