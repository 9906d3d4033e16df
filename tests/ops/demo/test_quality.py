"""Streaming AUC and log loss against their definitions."""

import math

import numpy as np
import pytest

from ekko.ops.demo.quality import QualityMeter, exact_auc


def auc_by_pairs(scores: np.ndarray, labels: np.ndarray) -> float:
    liked, others = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return float(((liked > others) + 0.5 * (liked == others)).mean())


@pytest.mark.parametrize("seed", range(4))
def test_exact_auc_counts_pairs(seed: int):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=200).astype(np.float32)
    scores = rng.integers(-9, 9, size=200).astype(np.float32)  # many ties
    assert exact_auc(scores, labels) == pytest.approx(auc_by_pairs(scores, labels))


def test_auc_of_one_label_is_not_a_number():
    assert math.isnan(exact_auc(np.float32([1, 2]), np.float32([1, 1])))
    assert math.isnan(QualityMeter().run().auc)


def test_run_is_within_its_resolution_of_the_exact_auc_and_loss():
    rng = np.random.default_rng(1)
    labels = rng.integers(2, size=20_000).astype(np.float32)
    scores = (rng.standard_normal(20_000) + labels).astype(np.float32)
    meter = QualityMeter()
    for start in range(0, 20_000, 50):
        meter.add(scores[start : start + 50], labels[start : start + 50])
    quality, chances = meter.run(), 1 / (1 + np.exp(-scores.astype(np.float64)))
    assert meter.resolution() < 1e-3
    assert abs(quality.auc - exact_auc(scores, labels)) <= meter.resolution()
    assert quality.log_loss == pytest.approx(-np.log(np.where(labels == 1, chances, 1 - chances)).mean())
    assert quality.count == 20_000


def test_recent_is_exact_over_the_window_and_bounded():
    rng = np.random.default_rng(2)
    labels = rng.integers(2, size=1_000).astype(np.float32)
    scores = rng.standard_normal(1_000).astype(np.float32)
    meter = QualityMeter(window=100)
    for start in range(0, 1_000, 30):
        meter.add(scores[start : start + 30], labels[start : start + 30])
    recent = meter.recent()
    assert 100 <= recent.count < 130
    assert recent.auc == pytest.approx(auc_by_pairs(scores[-recent.count :], labels[-recent.count :]))


def test_extreme_scores_neither_overflow_nor_leave_the_histogram():
    meter = QualityMeter()
    meter.add(np.float32([-1e6, 1e6]), np.float32([0, 1]))
    assert meter.run().auc == 1
    assert meter.run().log_loss == 0
