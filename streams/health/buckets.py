"""Sums of signals over short stretches of event time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Total:
    """A metric's sum over `count` observations."""

    sum: float = 0.0
    count: float = 0.0

    def __add__(self, other: "Total") -> "Total":
        return Total(self.sum + other.sum, self.count + other.count)

    @property
    def mean(self) -> float:
        """The mean observation; NaN without any."""
        return self.sum / self.count if self.count else float("nan")


class Bucket(NamedTuple):
    """All that was measured about a model in one stretch of event time, once its watermark has passed.

    Attributes:
        start_s: its beginning, seconds since 1970.
        totals: by metric and cohort ('live' or 'baseline'); what was not measured is left out.
    """

    start_s: float
    totals: Mapping[tuple[str, str], Total]

    def total(self, metric: str, cohort: str = "live") -> Total:
        """The metric's total, empty if nothing was measured."""
        return self.totals.get((metric, cohort), Total())
