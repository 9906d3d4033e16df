"""What is express and what is bulk, by the recent scores of all models of a region and the monitor's shares."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.signals import Shares
from ekko.streams.fanout.rows import Bools, RowUpdates
from ekko.streams.fanout.score import Float64s, Score, Scored, ScoreWindow, checked, ekko_score, l1_norms

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
        excess: how many times the percentile's part of rows may be express now, see `Budget.excess`; None: no limit.
    """

    def __init__(
        self,
        percentile: float,
        score: Score = ekko_score,
        name: str = "ekko",
        *,
        excess: Callable[[float], float] | None = None,
    ) -> None:
        self._percentile, self._excess = percentile, excess
        self._score, self._name = score, name
        self._window, self._grown = ScoreWindow(), ScoreWindow()
        self._norms: dict[str, _Norms] = {}
        self._shares: Mapping[str, Shares] = {}
        self._models = 1
        self._lock = threading.Lock()

    def learn(self, shares: Mapping[str, Shares], models: int) -> None:
        """Use these shares from now on (by model; kept until others come), and this number of models."""
        self._shares, self._models = dict(shares), max(models, 1)

    def take_report(self, model: str) -> tuple[float, int]:
        """Sum and count of the norms observed since the last report."""
        with self._lock:
            norms = self._norms.setdefault(model, _Norms())
            report = norms.unreported_total, norms.unreported_count
            norms.unreported_total, norms.unreported_count = 0.0, 0
        return report

    def urgent(self, model: str, table: TableDeclaration, updates: RowUpdates, now_s: float) -> Bools:
        """Which updates, as they were published, are express: bool[N]; later ones are compared with their scores."""
        norms = l1_norms(updates.deltas, table.fraction_bits)
        with self._lock:
            self._norms.setdefault(model, _Norms()).add(norms, now_s)
        scores = self._scores(model, table, updates, norms)
        self._window.add(scores, now_s)
        return self._above(scores, self._window, now_s)

    def lifted(self, model: str, table: TableDeclaration, updates: RowUpdates, now_s: float) -> Bools:
        """Which rows that have waited long enough are express by what they have accumulated: bool[N].

        They are compared with their like, so that no more than the same part of them is express.
        """
        scores = self._scores(model, table, updates, l1_norms(updates.deltas, table.fraction_bits))
        self._grown.add(scores, now_s)
        return self._above(scores, self._grown, now_s)

    def _above(self, scores: Float64s, window: ScoreWindow, now_s: float) -> Bools:
        if not self._percentile:
            return np.ones(len(scores), np.bool_)
        if self._excess is None:
            return scores >= window.percentile(self._percentile, now_s)[0]
        # Where many have about the same score, all that are at the percentile can be more than the link carries.
        most = self._excess(now_s) * (1 - self._percentile / 100)
        return scores >= window.cut_off(self._percentile, most, now_s)

    def _scores(self, model: str, table: TableDeclaration, updates: RowUpdates, norms: Float64s) -> Float64s:
        shares = self._shares.get(model)
        scored = Scored(
            model,
            table.name,
            updates.keys,
            updates.deltas,
            updates.created,
            norms,
            self._mean_norm(model, shares),
            1.0 / self._models if shares is None else shares.request_share,
        )
        scores = self._score(scored)
        return scores if self._score is ekko_score else checked(scores, len(updates), self._name)

    def _mean_norm(self, model: str, shares: Shares | None) -> float:
        if shares is not None and shares.mean_gradient > 0:
            return shares.mean_gradient
        with self._lock:
            local = self._norms.get(model, _Norms())
        return local.total / local.count if local.total > 0 else 1.0
