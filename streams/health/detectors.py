"""Detectors behind one interface: each looks at one bucket after the other and says what is wrong, or nothing."""

from collections import deque
from math import isfinite
from typing import Protocol

from ekko.streams.health.buckets import Bucket, Total
from ekko.streams.health.usual import HOLD_BUCKETS, Usual

GRADIENTS = "gradient_norm"


class Detector(Protocol):
    """One kind of trouble.

    Attributes:
        grave: whether this trouble alone may call for a rollback; else it only makes a model suspect.
    """

    grave: bool

    def update(self, bucket: Bucket) -> str | None:
        """What is wrong as of this bucket, in words; None if nothing is, or nothing can be said."""


class GuardBand:
    """The live cohort is worse than the baseline by more than a share of it.

    Args:
        metric: one of which more is worse (log_loss); or, with `higher_is_better`, of which less is (auc, ctr).
        band: share of the baseline's mean.
        window: buckets over which both means are taken.
        min_count: observations of each cohort below which nothing is said.
    """

    grave = True

    def __init__(
        self, metric: str, *, band: float = 0.1, window: int = 5, min_count: float = 200, higher_is_better: bool = False
    ) -> None:
        self._metric, self._band, self._min_count = metric, band, min_count
        self._sign = -1.0 if higher_is_better else 1.0
        self._recent: deque[tuple[Total, Total]] = deque(maxlen=window)

    def update(self, bucket: Bucket) -> str | None:
        """See `Detector.update`."""
        self._recent.append((bucket.total(self._metric), bucket.total(self._metric, "baseline")))
        live = sum((pair[0] for pair in self._recent), Total())
        baseline = sum((pair[1] for pair in self._recent), Total())
        if min(live.count, baseline.count) < self._min_count:
            return None
        worse = self._sign * (live.mean - baseline.mean)
        if worse <= self._band * abs(baseline.mean):  # false for NaN: that is an alarm, too
            return None
        return f"{self._metric} is {live.mean:.4g} live and {baseline.mean:.4g} at the baseline"


class Jump:
    """A metric's mean in a bucket is many times the median of the buckets before, or not a number.

    Args:
        factor: how many times.
        history, min_history: buckets that make the median, and below which nothing is said.
        hold: see `Usual`.
    """

    grave = True

    def __init__(
        self, metric: str, *, factor: float = 10.0, history: int = 60, min_history: int = 5, hold: int = HOLD_BUCKETS
    ) -> None:
        self._metric = metric
        self._usual = Usual(factor=factor, history=history, min_history=min_history, hold=hold)

    def update(self, bucket: Bucket) -> str | None:
        """See `Detector.update`."""
        total = bucket.total(self._metric)
        if not total.count:
            return None
        if not isfinite(total.mean):
            return f"{self._metric} is {total.mean}"
        usual = self._usual.exceeded(total.mean)
        return None if usual is None else f"{self._metric} is {total.mean:.4g}, usually {usual:.4g}"


class Occurs:
    """Something is reported that must never be, such as predictions that are not numbers.

    Args:
        grave: see `Detector`.
    """

    def __init__(self, metric: str, *, grave: bool = True) -> None:
        self._metric, self.grave = metric, grave

    def update(self, bucket: Bucket) -> str | None:
        """See `Detector.update`."""
        count = bucket.total(self._metric).count
        return f"{count:.0f} observations of {self._metric}" if count else None


class Share:
    """Of all that is counted under two metrics, one makes up more than its share.

    Args:
        of: the metric that counts what is right.
        limit: share at or below which nothing is wrong.
    """

    grave = True

    def __init__(self, metric: str, of: str, *, limit: float = 0.1) -> None:
        self._metric, self._of, self._limit = metric, of, limit

    def update(self, bucket: Bucket) -> str | None:
        """See `Detector.update`."""
        bad, good = bucket.total(self._metric).count, bucket.total(self._of).count
        if bad <= self._limit * (bad + good):
            return None
        return f"{bad:.0f} {self._metric} beside {good:.0f} of {self._of}"


class Rate:
    """There are many times more observations of a metric a bucket than usual; see `Jump`."""

    grave = False

    def __init__(
        self, metric: str, *, factor: float = 10.0, history: int = 60, min_history: int = 10, hold: int = HOLD_BUCKETS
    ) -> None:
        self._metric = metric
        self._usual = Usual(factor=factor, history=history, min_history=min_history, hold=hold)

    def update(self, bucket: Bucket) -> str | None:
        """See `Detector.update`; a beginning is no alarm."""
        count = bucket.total(self._metric).count
        usual = self._usual.exceeded(count)
        return f"{count:.0f} observations of {self._metric}, usually {usual:.0f}" if usual else None
