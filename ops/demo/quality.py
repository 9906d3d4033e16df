"""How good predictions are, as they stream by: AUC and log loss."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.model import probabilities

Floats = NDArray[np.float32]


def exact_auc(scores: Floats, labels: Floats) -> float:
    """Area under the ROC curve: the chance that a liked item scores above another one, ties counting half.

    The Mann-Whitney statistic over mid-ranks. ``scores`` and ``labels`` are ``float32[N]``; NaN for one label alone.
    """
    _, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    liked = labels > 0.5
    positives, negatives = np.count_nonzero(liked), np.count_nonzero(~liked)
    if not positives or not negatives:
        return float("nan")
    return float((ranks[position[liked]].sum() - positives * (positives + 1) / 2) / (positives * negatives))


@dataclass(frozen=True, slots=True)
class Quality:
    """AUC and mean log loss in nats over ``count`` predictions; NaN where there are none."""

    auc: float
    log_loss: float
    count: int


class QualityMeter:
    """AUC and log loss of a whole run in fixed memory, and of the last ``window`` predictions exactly.

    The run's AUC comes from a histogram of the predicted probabilities for each label. Predictions in one bin count as
    ties, so it differs from the exact AUC by at most half the share of (liked, not liked) pairs that meet in one bin:
    `resolution`.
    """

    BINS = 1 << 14

    def __init__(self, window: int = 5_000) -> None:
        self._histogram = np.zeros((2, self.BINS), np.int64)
        self._loss = 0.0
        self._window = window
        self._recent: deque[tuple[Floats, Floats]] = deque()
        self._recent_count = 0

    def add(self, scores: Floats, labels: Floats) -> None:
        """Take predictions in: logits ``float32[N]`` and labels ``float32[N]``, 0 or 1."""
        bins = np.minimum((probabilities(scores) * self.BINS).astype(np.intp), self.BINS - 1)
        np.add.at(self._histogram, (labels.astype(np.intp), bins), 1)
        self._loss += float(log_losses(scores, labels).sum())
        self._recent.append((scores, labels))
        self._recent_count += len(labels)
        while self._recent_count - len(self._recent[0][1]) >= self._window:
            self._recent_count -= len(self._recent.popleft()[1])

    def run(self) -> Quality:
        """Quality of every prediction so far."""
        misses, hits = self._histogram
        pairs = float(misses.sum()) * float(hits.sum())
        below = np.cumsum(misses) - misses
        auc = float((hits * (below + misses / 2)).sum() / pairs) if pairs else float("nan")
        count = int(self._histogram.sum())
        return Quality(auc, self._loss / count if count else float("nan"), count)

    def resolution(self) -> float:
        """Largest possible difference between the run's AUC here and the exact one."""
        misses, hits = self._histogram.astype(np.float64)
        pairs = misses.sum() * hits.sum()
        return float((misses * hits).sum() / pairs / 2) if pairs else 0.0

    def recent(self) -> Quality:
        """Quality of the last predictions, at least ``window`` of them once there are so many (whole batches)."""
        if not self._recent:
            return Quality(float("nan"), float("nan"), 0)
        scores, labels = (np.concatenate(column) for column in zip(*self._recent, strict=True))
        return Quality(exact_auc(scores, labels), float(log_losses(scores, labels).mean()), len(labels))


def log_losses(scores: Floats, labels: Floats) -> NDArray[np.float64]:
    """Logistic loss of each prediction from its logit, without overflow: log(1 + exp(s)) - y s."""
    logits = scores.astype(np.float64)
    return np.asarray(np.logaddexp(0.0, logits) - labels * logits, np.float64)
