"""What a replica tells the monitor of its models with every announcement: update latencies and rows that overflowed."""

import logging
import time
from collections import Counter
from collections.abc import Callable

from ekko.schemas.errors import QueueFull
from ekko.schemas.signals import OVERFLOWED, Signal
from ekko.streams.replica.model_runner import ModelRunner

_log = logging.getLogger("ekko.store")


class Reports:
    """Aggregates of the time since the last report.

    Args:
        replica: source of the signals.
        put: passes a signal on; raises QueueFull.
    """

    def __init__(self, region: str, replica: str, put: Callable[[Signal], None]) -> None:
        self._region, self._source, self._put = region, f"store/{replica}", put
        self._overflowed: Counter[str] = Counter()

    def report(self, runner: ModelRunner) -> None:
        """Tell what is new of a model; a report that does not fit in is left out."""
        name = runner.model.name
        interval = runner.metrics.latency.take_interval()
        if interval.blocks:
            self._send(name, "update_latency_ms", interval.total_ms, interval.blocks)
        if runner.store is None:
            return
        overflowed = sum(count for count, _ in runner.store.overflows.values())
        new = overflowed - self._overflowed[name]
        self._overflowed[name] = overflowed
        if new > 0:
            self._send(name, OVERFLOWED, float(new), new)

    def _send(self, model: str, metric: str, value: float, count: int) -> None:
        now_us = time.time_ns() // 1_000
        try:
            self._put(Signal(model, self._region, self._source, metric, value, count, now_us))
        except QueueFull as error:
            _log.debug("%s", error)
