"""The factorisation machine: right gradients, steps that descend, and a gain from freshness."""

from pathlib import Path

import numpy as np
import pytest

from ekko.ops.demo.model import AdaGrad, Batch, logits, loss_gradients, probabilities, take_batch
from ekko.ops.demo.quality import exact_auc
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions


def random_batch(rng: np.random.Generator, interactions: int = 6, features: int = 4, keys: int = 5) -> Batch:
    index = rng.integers(keys, size=(interactions, features))
    index.ravel()[:keys] = np.arange(keys)  # every key is used
    values = rng.choice(np.float32([0, 1, 0.5]), size=index.shape)
    labels = rng.integers(2, size=interactions).astype(np.float32)
    return Batch(np.arange(keys, dtype=np.uint64), index, values, labels)


def loss(rows: np.ndarray, batch: Batch, l2: float) -> float:
    """The objective in plain loops: logistic loss of every interaction plus weight decay for each use of a row."""
    total = 0.0
    for index, values, label in zip(batch.index, batch.values.tolist(), batch.labels.tolist(), strict=True):
        logit = sum(rows[i, 0] * x for i, x in zip(index, values, strict=True))
        for a in range(len(index)):
            for b in range(a + 1, len(index)):
                logit += float(rows[index[a], 1:] @ rows[index[b], 1:]) * values[a] * values[b]
        total += np.logaddexp(0, logit) - label * logit
        total += sum(l2 / 2 * float(rows[i] @ rows[i]) for i, x in zip(index, values, strict=True) if x)
    return float(total)


@pytest.mark.parametrize("seed", range(5))
def test_gradients_match_finite_differences(seed: int):
    rng = np.random.default_rng(seed)
    batch, rows, l2, step = random_batch(rng), rng.standard_normal((5, 4)) * 0.5, 0.03, 1e-5
    numeric = np.empty_like(rows)
    for place in np.ndindex(rows.shape):
        above, below = rows.copy(), rows.copy()
        above[place] += step
        below[place] -= step
        numeric[place] = (loss(above, batch, l2) - loss(below, batch, l2)) / (2 * step)
    np.testing.assert_allclose(loss_gradients(rows.astype(np.float32), batch, l2), numeric, rtol=1e-3, atol=2e-5)


def test_probabilities_saturate_without_overflow():
    assert probabilities(np.float32([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]


def test_adagrad_steps_shrink_and_go_downhill():
    optimizer = AdaGrad(2, linear_rate=0.1, factor_rate=0.05)
    keys, gradients = np.uint64([3, 9]), np.float32([[1, -2], [0, 4]])
    first, second = optimizer.step(keys, gradients), optimizer.step(keys, gradients)
    np.testing.assert_allclose(first, [[-0.1, 0.05], [0, -0.05]], rtol=1e-4)
    np.testing.assert_allclose(second, first / np.sqrt(2), rtol=1e-4)


def test_adagrad_keeps_each_keys_history_when_new_keys_come_between():
    one, two = AdaGrad(1, 0.1, 0.1), AdaGrad(1, 0.1, 0.1)
    gradient = np.float32([[2.0]])
    expected = [one.step(np.uint64([7]), gradient) for _ in range(2)][1]
    two.step(np.uint64([7]), gradient)
    two.step(np.uint64([1, 9]), np.float32([[5], [5]]))
    assert two.step(np.uint64([7]), gradient) == expected


def test_adagrad_goes_on_from_a_file(tmp_path: Path):
    one, two, keys = AdaGrad(2, 0.1, 0.1), AdaGrad(2, 0.1, 0.1), np.uint64([4, 8])
    gradients = np.float32([[1, 2], [3, 4]])
    one.step(keys, gradients)
    one.save(tmp_path / "optimizer.npz")
    two.load(tmp_path / "optimizer.npz")
    assert np.array_equal(two.step(keys, gradients), one.step(keys, gradients))
    AdaGrad(2, 0.1, 0.1).load(tmp_path / "none.npz")


def test_learning_beats_frozen_rows_on_the_stream():
    stream = synthetic_interactions(5, SyntheticShape(interactions=6_000, users=60, items=100, periods=10))
    vocabulary = stream.vocabulary()
    initial = np.random.default_rng(0).uniform(-0.05, 0.05, (len(vocabulary), 9)).astype(np.float32)
    live, frozen, optimizer = initial.copy(), initial.copy(), AdaGrad(9, 0.2, 0.07)
    live_scores, frozen_scores = [], []
    for start in range(0, len(stream), 20):
        batch = take_batch(stream, start, start + 20)
        slots = np.searchsorted(vocabulary, batch.keys)
        if start % 2_000 == 0:
            frozen = live.copy()
        live_scores.append(logits(live[slots], batch))
        frozen_scores.append(logits(frozen[slots], batch))
        live[slots] += optimizer.step(batch.keys, loss_gradients(live[slots], batch, 0.01))
    gain = exact_auc(np.concatenate(live_scores), stream.labels) - exact_auc(
        np.concatenate(frozen_scores), stream.labels
    )
    assert gain > 0.05
