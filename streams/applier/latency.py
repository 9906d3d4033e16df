"""Update latency at a store: publish call -> row readable, one observation a lane block."""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from ddsketch import DDSketch

from ekko.schemas.blocks import Lane
from ekko.storage.serving.served import Percentiles, UpdateLatency

_RELATIVE_ACCURACY = 0.01


class Interval(NamedTuple):
    """What was observed since the last interval: the sum in milliseconds, of how many blocks."""

    total_ms: float
    blocks: int


class LatencyRecorder:
    """Sketches of one model's update latencies, a lane each (DDSketch: Masson, Rim, Lee, VLDB '19; 1 % accurate).

    May be read by other threads than the one that observes.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._lanes = {lane: DDSketch(_RELATIVE_ACCURACY) for lane in Lane}
        self._recovery = DDSketch(_RELATIVE_ACCURACY)
        self._largest = dict.fromkeys((*Lane, None), 0.0)
        self._total_ms = 0.0
        self._count = 0

    def observe(self, lane: Lane, latencies_ms: Iterable[float], *, recovering: bool) -> None:
        """Count blocks of a lane; those read to catch up after a start are kept apart."""
        sketch = self._recovery if recovering else self._lanes[lane]
        key = None if recovering else lane
        with self._lock:
            for latency_ms in latencies_ms:
                sketch.add(latency_ms)
                self._largest[key] = max(self._largest[key], latency_ms)
                if not recovering:
                    self._total_ms += latency_ms
                    self._count += 1

    def take_interval(self) -> Interval:
        """What was observed since the last call, recovery left out: for the signal `update_latency_ms`."""
        with self._lock:
            interval = Interval(self._total_ms, self._count)
            self._total_ms, self._count = 0.0, 0
            return interval

    def summary(self) -> UpdateLatency:
        """Percentiles since the process started."""
        with self._lock:
            both = DDSketch(_RELATIVE_ACCURACY)
            for sketch in self._lanes.values():
                both.merge(sketch)
            largest = self._largest
            return UpdateLatency(
                self._model,
                _percentiles(self._lanes[Lane.EXPRESS], largest[Lane.EXPRESS]),
                _percentiles(self._lanes[Lane.BULK], largest[Lane.BULK]),
                _percentiles(both, max(largest[Lane.EXPRESS], largest[Lane.BULK])),
                _percentiles(self._recovery, largest[None]),
            )


def _percentiles(sketch: DDSketch, largest: float) -> Percentiles:
    if not sketch.count:
        return Percentiles(0)
    p50, p90, p99, p999 = (sketch.get_quantile_value(quantile) for quantile in (0.5, 0.9, 0.99, 0.999))
    return Percentiles(int(sketch.count), p50, p90, p99, p999, largest)
