"""What a model's signals have said of its trainers lately, read back from the log (no Faust).

A monitor stores nothing of this: fan-outs tell of trainers whether one runs or not, and the signals keep it for a day.
So whoever begins to follow a model knows what it would know if it had been there for the last half hour.
"""

from contextlib import suppress
from typing import NamedTuple

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.errors import EkkoError
from ekko.schemas.signals import Signal
from ekko.streams.health.trainers import RECALLED_S, TrainerWatch
from ekko.streams.log import Cluster, Partition, read_range

COUNTS = (2_000, 16_000, 128_000)
"""So many of the newest signals are read, each time more, until they reach far enough back. The last is the bound: with
more than seventy signals a second it is less than `RECALLED_S`."""
_TIMEOUT_S = 10.0


class Recalled(NamedTuple):
    """A watch that has heard everything before offset `end` of the model's signals."""

    watch: TrainerWatch
    end: int


def recall(cluster: Cluster, codec: Codec, model: str) -> Recalled:
    """Follow the model's trainers through its signals of the last `RECALLED_S`, by the broker's clock.

    Raises:
        TopicMissing: the model has no signals topic.
        GapError: retention was faster than the reader; try again.
        ConnectionFailed: the brokers do not answer in time.
    """
    partition = Partition(topics.signals(model), 0)
    for count in COUNTS:
        bounds = cluster.bounds([partition])[partition]
        start = max(bounds.low, bounds.end - count)
        records = read_range(cluster, {partition: start}, timeout_s=_TIMEOUT_S)
        if not records:
            return Recalled(TrainerWatch(), bounds.end)
        since_ms = records[-1].timestamp_ms - int(RECALLED_S * 1e3)
        if start == bounds.low or records[0].timestamp_ms < since_ms:
            break
    if start:
        since_ms = max(since_ms, records[0].timestamp_ms)
    watch = TrainerWatch(since_ms * 1_000)
    for record in records:
        if record.timestamp_ms >= since_ms:
            with suppress(EkkoError):  # what cannot be read is counted where it is read first
                signal = codec.decode(record.value)
                if isinstance(signal, Signal) and signal.model == model:
                    watch.hear(signal)
    return Recalled(watch, records[-1].offset + 1)
