"""What is express and what is bulk, by the recent scores of all models of a region and the monitor's shares."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.signals import Shares
from ekko.streams.fanout.budget import Budget
from ekko.streams.fanout.rows import Bools, RowUpdates
from ekko.streams.fanout.score import Float64s, Score, Scored, ScoreWindow, checked, ekko_score

_RECENT_S = 60.0


@dataclass(slots=True)
class _Norms:
    """l1 norms of a model's row updates: sums that fade with time, and what was not reported yet."""

    total: float = 0.0
    count: float = 0.0
    updated_s: float = 0.0
    unreported_total: float = 0.0
    unreported_count: int = 0

    def add(self, norms: Float64s, now_s: float) -> None:
        fade = 0.5 ** (max(0.0, now_s - self.updated_s) / _RECENT_S)
        total = float(norms.sum())
        self.total = self.total * fade + total
        self.count = self.count * fade + len(norms)
        self.updated_s = max(now_s, self.updated_s)
        self.unreported_total += total
        self.unreported_count += len(norms)


class Sorter:
    """Tells express rows. Thread-safe: all models of a region share one.

    Where the monitor has said nothing about a model, its mean is the local one and its share that of an average model.

    Args:
        percentile: a row is express when its score is at or above this percentile of recent scores.
        score: see `score.load_score`.
    """

    def __init__(self, percentile: float, budget: Budget, score: Score = ekko_score, name: str = "ekko") -> None:
        self._percentile, self._budget = percentile, budget
        self._score, self._name = score, name
        self._window = ScoreWindow()
        self._norms: dict[str, _Norms] = {}
        self._shares: Mapping[str, Shares] = {}
        self._models = 1
        self._lock = threading.Lock()

    def learn(self, shares: Mapping[str, Shares], models: int) -> None:
        """Use these shares from now on (by model; kept until others come), and this number of models."""
        self._shares, self._models = dict(shares), max(models, 1)

    def observe(self, model: str, norms: Float64s, now_s: float) -> None:
        """Count the norms of updates as they arrived."""
        with self._lock:
            self._norms.setdefault(model, _Norms()).add(norms, now_s)

    def take_report(self, model: str) -> tuple[float, int]:
        """Sum and count of the norms observed since the last report."""
        with self._lock:
            norms = self._norms.setdefault(model, _Norms())
            report = norms.unreported_total, norms.unreported_count
            norms.unreported_total, norms.unreported_count = 0.0, 0
        return report

    def express(self, model: str, table: TableDeclaration, updates: RowUpdates, norms: Float64s, now_s: float) -> Bools:
        """Which rows are express: bool[N]. `norms`: of the accumulated deltas, float64[N], in parameter units.

        While the budget is in debt, rows just at the percentile are not: where many have the same score, express would
        be more than the link carries for ever.
        """
        shares = self._shares.get(model)
        scores = self._score(
            Scored(
                model,
                table.name,
                updates.keys,
                updates.deltas,
                updates.created,
                norms,
                self._mean_norm(model, shares),
                1.0 / self._models if shares is None else shares.request_share,
            )
        )
        if self._score is not ekko_score:
            scores = checked(scores, len(updates), self._name)
        self._window.add(scores, now_s)
        lower, upper = self._window.percentile(self._percentile, now_s)
        return scores > upper if self._budget.in_debt(now_s) else scores >= lower

    def _mean_norm(self, model: str, shares: Shares | None) -> float:
        if shares is not None and shares.mean_gradient > 0:
            return shares.mean_gradient
        with self._lock:
            local = self._norms.get(model, _Norms())
        return local.total / local.count if local.total > 0 else 1.0
