"""Drift of a metric without a baseline cohort: the Page-Hinkley test of river."""

from math import isfinite

from river.drift import PageHinkley

from ekko.streams.health.buckets import Bucket
from ekko.streams.health.usual import HOLD_BUCKETS


class Drift:
    """The live mean of a metric has risen for good (Page, 'Continuous inspection schemes', Biometrika 1954).

    The test tells the moment; from then on it is an alarm until the mean is back at what it was, or for `hold` buckets,
    after which the new level counts as usual.

    Args:
        metric: one of which more is worse.
        tolerance: relative rise that is no drift (the test's delta).
        threshold: sum of relative rises above the tolerance that is one (its lambda).
        min_buckets: buckets before the first alarm.
    """

    grave = True

    def __init__(
        self,
        metric: str,
        *,
        tolerance: float = 0.05,
        threshold: float = 0.5,
        min_buckets: int = 15,
        hold: int = HOLD_BUCKETS,
    ) -> None:
        self._metric, self._tolerance, self._hold = metric, tolerance, hold
        self._test = PageHinkley(min_instances=min_buckets, delta=tolerance, threshold=threshold, mode="up")
        self._usual = 0.0
        self._seen = 0
        self._alarms = 0

    def update(self, bucket: Bucket) -> str | None:
        """See `Detector.update`."""
        total = bucket.total(self._metric)
        if not total.count or not isfinite(total.mean):
            return None
        if self._alarms:
            return self._still(total.mean)
        if self._seen:
            self._test.update(total.mean / self._usual if self._usual else 1.0)  # type: ignore[no-untyped-call]
            if self._test.drift_detected:
                self._alarms = 1
                return self._text(total.mean)
        self._seen += 1
        self._usual += (total.mean - self._usual) / self._seen
        return None

    def _still(self, mean: float) -> str | None:
        self._alarms += 1
        if mean <= self._usual * (1 + self._tolerance):
            self._alarms = 0
            return None
        if self._alarms > self._hold:
            self._alarms, self._seen, self._usual = 0, 1, mean
            return None
        return self._text(mean)

    def _text(self, mean: float) -> str:
        return f"{self._metric} has risen from {self._usual:.4g} to {mean:.4g}"
