"""Ekko's priority of a row update (Sima et al., OSDI '22, section 4) and the percentile above which it is express.

    p = (p_g + p_u) * p_m

p_g = |g|_1 / mean |g|_1 of the model's recent updates; p_u = 1 for a row flagged created, else 0;
p_m = c_m / sum c, the model's share of inference requests.
"""

import importlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import ConfigurationError
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.streams.fanout.rows import Bools

Float64s = npt.NDArray[np.float64]

TOLERANCE = 0.1
"""Scores that are less by this part are told from others by chance: means drift while the window of scores ages, and
rows that are created alike have scores alike."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a score may depend on.

    Attributes:
        keys: uint64[N]. deltas: int32[N, dim] steps of 2**-fraction_bits. created: bool[N].
        norms: float64[N], l1 norms of the deltas in parameter units.
        mean_norm: mean l1 norm of the model's recent row updates, > 0.
        request_share: the model's share of inference requests, 0 to 1.
    """

    model: str
    table: str
    keys: UInt64s = field(repr=False)
    deltas: Int32s = field(repr=False)
    created: Bools = field(repr=False)
    norms: Float64s = field(repr=False)
    mean_norm: float
    request_share: float


Score = Callable[[Scored], Float64s]
"""Returns float64[N], finite and >= 0: higher goes first."""


def ekko_score(updates: Scored) -> Float64s:
    """Ekko's score, see the module's head."""
    return (updates.norms / updates.mean_norm + updates.created) * updates.request_share


def l1_norms(deltas: Int32s, fraction_bits: int) -> Float64s:
    """l1 norm of every row in parameter units: float64[N] of int32[N, dim]."""
    # float32 holds the absolute value of every int32 (int32 does not hold that of -2**31); sums are made in float64.
    norms: Float64s = np.abs(deltas, dtype=np.float32, casting="unsafe").sum(axis=1, dtype=np.float64)
    return norms * 2.0**-fraction_bits


def load_score(name: str | None) -> Score:
    """The score function with dotted name `module:function`; None: `ekko_score`. Tried once on two rows.

    Raises:
        ConfigurationError: no such function, or it does not return float64[N], finite and >= 0.
    """
    if name is None:
        return ekko_score
    module, _, attribute = name.partition(":")
    try:
        score: Score = getattr(importlib.import_module(module), attribute)
        ones = np.ones((2, 1), np.int32)
        probe = Scored(
            "probe", "probe", np.arange(2, dtype=np.uint64), ones, np.zeros(2, np.bool_), np.ones(2), 1.0, 1.0
        )
        checked(score(probe), 2, name)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"score {name!r} cannot be used: {type(error).__name__}: {error}",
            hint="name `package.module:function`, which takes an ekko.streams.fanout.Scored and returns float64[N]",
        ) from error
    return score


def checked(scores: object, count: int, name: str) -> Float64s:
    """`scores` as float64[count]; raises ConfigurationError where a custom score returned anything else."""
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (count,) or not np.all(np.isfinite(array) & (array >= 0)):
        raise ConfigurationError(
            f"score {name!r} must return {count} finite numbers >= 0, it returned shape {array.shape}"
        )
    return array


class ScoreWindow:
    """Percentiles of the scores of a sliding window: DDSketch (Masson, Rim, Lee, VLDB '19) as numpy counts.

    A percentile lies in the bucket of the true one: 2 * `accuracy` wide, relative, for scores in [1e-9, 1e9]; smaller
    ones count as 0 and larger ones as 1e9. The window is cut in `slices` sub-sketches that are dropped whole, so it
    spans between window_s * (1 - 1/slices) and window_s. Thread-safe: all models of a region share one.
    """

    def __init__(self, *, window_s: float = 10.0, slices: int = 5, accuracy: float = 0.0025) -> None:
        self._gamma = (1 + accuracy) / (1 - accuracy)
        self._lowest, self._highest = self._bucket(1e-9), self._bucket(1e9)
        self._counts = np.zeros((slices, self._highest - self._lowest + 2), np.int64)
        self._slice_s = window_s / slices
        self._slice = 0
        self._lock = threading.Lock()

    def _bucket(self, score: float) -> int:
        return int(np.ceil(np.log(score) / np.log(self._gamma)))

    def add(self, scores: Float64s, now_s: float) -> None:
        """Count scores (float64[N], >= 0) as seen now."""
        # Bucket i holds (gamma**(i-1), gamma**i]; column 0 holds what is too small to matter.
        logs = np.log(np.maximum(scores, 1e-12)) / np.log(self._gamma)
        columns = np.clip(np.ceil(logs).astype(np.int64) - self._lowest + 1, 0, self._counts.shape[1] - 1)
        counts = np.bincount(columns, minlength=self._counts.shape[1])
        with self._lock:
            self._turn(now_s)
            self._counts[self._slice % len(self._counts)] += counts

    def percentile(self, percent: float, now_s: float) -> tuple[float, float]:
        """Bounds of the score below which `percent` % of the window's scores lie; zeros while the window is empty.

        Whatever is at or above the true percentile is at or above the lower bound.
        """
        above = self._above(now_s)
        if not above[0]:
            return 0.0, 0.0
        column = _column(above, percent)
        lower = self._lower(column)
        return lower, lower * self._gamma

    def cut_off(self, percent: float, most: float, now_s: float) -> float:
        """The score from which on rows are among the highest of the window, as many as a link carries.

        That of the percentile less TOLERANCE, or the percentile itself, or, where many are alike, one beyond it: the
        first that no more than `most` (0 to 1) of the window's scores are at or above.
        """
        above = self._above(now_s)
        if not above[0]:
            return 0.0
        column = _column(above, percent)
        tolerant = max(0, column + math.floor(math.log1p(-TOLERANCE) / math.log(self._gamma)))
        for chosen in (tolerant, column):
            if above[chosen] <= most * above[0]:
                return self._lower(chosen)
        beyond = int(np.searchsorted(-above, -most * above[0]))
        return math.inf if beyond == len(above) else float(np.nextafter(self._lower(beyond), np.inf))

    def _above(self, now_s: float) -> npt.NDArray[np.int64]:
        """How many scores are in each bucket or above it."""
        with self._lock:
            self._turn(now_s)
            above: npt.NDArray[np.int64] = self._counts.sum(axis=0)[::-1].cumsum()[::-1]
            return above

    def _lower(self, column: int) -> float:
        """The bound that all scores in a bucket are above; 0 for the bucket of what is too small to matter."""
        return float(self._gamma ** (column - 2 + self._lowest)) if column else 0.0

    def _turn(self, now_s: float) -> None:
        current = int(now_s // self._slice_s)
        passed = min(max(current - self._slice, 0), len(self._counts))
        for slice_ in range(current - passed + 1, current + 1):
            self._counts[slice_ % len(self._counts)] = 0
        self._slice = max(current, self._slice)


def _column(above: npt.NDArray[np.int64], percent: float) -> int:
    """The bucket of a percentile, from how many scores are in each bucket or above it."""
    from_top = above[0] - percent / 100 * (above[0] - 1)
    return int(np.searchsorted(-above, -from_top, side="right")) - 1
