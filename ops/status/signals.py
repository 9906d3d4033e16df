"""What the models' signals have said lately: quality of live rows beside the baseline's, and what waits at fan-outs."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.errors import EkkoError
from ekko.schemas.signals import ENDED, PENDING_BYTES, PUBLISHED, Signal
from ekko.streams.health.buckets import Total
from ekko.streams.health.proposals import METRIC as VERDICT
from ekko.streams.log import Cluster, Partition, read_range

WINDOW_S = 30.0
"""Quality is that of so many seconds before the newest signal of the model, by the broker's clock."""
LATEST_S = 10.0
"""Fan-outs tell what waits every second; one that was not heard for so long is gone, and others have its rows."""
KEPT_S = 120.0
"""Signals are kept for so long."""
FIRST_OFFSETS = 10_000
"""Offsets at the end of a model's signals that are read at first."""

_PROCESSES = ("fanout/", "monitor/", "store/")
"""Sources that measure the pipeline and not the model."""
_NO_QUALITY = frozenset({"requests", PUBLISHED, ENDED})
"""What serving and trainers do, and not how well."""


class Heard(NamedTuple):
    """A signal, and the broker's stamp on it, milliseconds since 1970."""

    at_ms: int
    signal: Signal


class QualityKey(NamedTuple):
    """A metric of a model as served in a region."""

    model: str
    region: str
    metric: str


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured with live rows, and on the baseline's older ones."""

    live: Total = field(default_factory=Total)
    baseline: Total = field(default_factory=Total)


@dataclass(frozen=True, slots=True)
class Pending:
    """What a region's fan-outs hold back of a model: rows, and bytes of memory that they take."""

    rows: int = 0
    nbytes: int = 0


class SignalTail:
    """What every model's signals said within KEPT_S; `read` goes on where it was."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._codec = Codec()
        self._next: dict[Partition, int] = {}
        self._heard: dict[str, deque[Heard]] = {}

    def read(self, models: Iterable[str]) -> list[Heard]:
        """What was heard of these models within KEPT_S, oldest first within a model.

        Raises:
            TopicMissing: a model has no signals topic.
            ConnectionFailed: the cluster does not answer.
        """
        partitions = {Partition(topics.signals(model), 0): model for model in models}
        bounds = self._cluster.bounds(partitions)
        starts = {
            partition: max(self._next.get(partition, bound.end - FIRST_OFFSETS), bound.low)
            for partition, bound in bounds.items()
        }
        for record in read_range(self._cluster, starts):
            with suppress(EkkoError):  # what cannot be read is the monitor's to tell
                signal = self._codec.decode(record.value)
                if isinstance(signal, Signal):
                    heard = self._heard.setdefault(partitions[record.partition], deque())
                    heard.append(Heard(record.timestamp_ms, signal))
            starts[record.partition] = record.offset + 1
        self._next = starts
        self._heard = {model: self._heard.get(model, deque()) for model in partitions.values()}
        for heard in self._heard.values():
            while heard and heard[0].at_ms < heard[-1].at_ms - KEPT_S * 1e3:
                heard.popleft()
        return [each for heard in self._heard.values() for each in heard]


def quality(heard: Sequence[Heard]) -> dict[QualityKey, Quality]:
    """What serving processes and trainers have measured within WINDOW_S, by model, region and metric."""
    newest_ms: dict[str, int] = {}
    for at_ms, signal in heard:
        newest_ms[signal.model] = max(newest_ms.get(signal.model, 0), at_ms)
    totals: dict[tuple[QualityKey, str], Total] = defaultdict(Total)
    for at_ms, signal in heard:
        if at_ms < newest_ms[signal.model] - WINDOW_S * 1e3:
            continue
        if signal.metric not in _NO_QUALITY and not signal.source.startswith(_PROCESSES):
            key = QualityKey(signal.model, signal.region, signal.metric)
            totals[key, signal.cohort] += Total(signal.value, signal.count)
    keys = sorted({key for key, _ in totals})
    return {key: Quality(totals[key, "live"], totals[key, "baseline"]) for key in keys}


def pending(heard: Iterable[Heard]) -> dict[tuple[str, str], Pending]:
    """What waits, by region and model: the last word of every fan-out instance that was heard within LATEST_S."""
    last: dict[tuple[str, str, str], Heard] = {}
    newest_ms = 0
    for each in heard:
        newest_ms = max(newest_ms, each.at_ms)
        if each.signal.metric == PENDING_BYTES:
            last[each.signal.region, each.signal.model, each.signal.source] = each
    found: dict[tuple[str, str], Pending] = {}
    for (region, model, _), (at_ms, signal) in sorted(last.items()):
        if at_ms >= newest_ms - LATEST_S * 1e3:
            known = found.get((region, model), Pending())
            found[region, model] = Pending(known.rows + signal.count, known.nbytes + int(signal.value))
    return found


def last_verdict_us(heard: Iterable[Heard], model: str) -> int:
    """When the monitor last judged a model, microseconds since 1970 by the broker's clock; 0 if that was not heard."""
    told = [at_ms for at_ms, signal in heard if signal.model == model and signal.metric == VERDICT]
    return max(told, default=0) * 1_000
