"""What a trainer learns and when it asks a store."""

import numpy as np
import pytest

from ekko.ops.demo.learner import Learner
from ekko.ops.demo.model import Batch, logits
from ekko.schemas.errors import NotReady


def batch_of(keys: list[int]) -> Batch:
    index = np.arange(len(keys)).reshape(1, -1)
    return Batch(np.uint64(keys), index, np.ones(index.shape, np.float32), np.float32([1]))


class Store:
    """Rows that a learner pulls, with a note of what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def pull(self, keys):
        self.asked.append(keys.tolist())
        return np.full((len(keys), 3), 0.25, np.float32), keys % 2 == 0


def test_a_step_raises_the_score_of_what_was_liked():
    learner, batch = Learner(3, Store().pull), batch_of([1, 2])
    step = learner.learn(batch)
    before = np.full((2, 3), 0.25, np.float32)
    assert logits(before + step.deltas, batch) > logits(before, batch)


def test_rows_are_pulled_once_and_absent_ones_are_flagged_created():
    store = Store()
    learner = Learner(3, store.pull)
    assert learner.learn(batch_of([1, 2])).created.tolist() == [True, False]
    assert learner.learn(batch_of([2, 3])).created.tolist() == [False, True]
    assert store.asked == [[1, 2], [3]]


def test_the_learner_goes_on_from_its_own_rows():
    learner, batch = Learner(3, Store().pull), batch_of([1, 2])
    losses, rows = [], np.full((2, 3), 0.25, np.float32)
    for _ in range(20):
        losses.append(float(np.logaddexp(0, -logits(rows, batch))[0]))
        rows = rows + learner.learn(batch).deltas
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2


def test_after_a_rollback_rows_are_pulled_again():
    store = Store()
    learner = Learner(3, store.pull)
    learner.learn(batch_of([1, 2]))
    learner.forget()
    learner.learn(batch_of([1, 2]))
    assert store.asked == [[1, 2], [1, 2]]


def test_a_failed_pull_teaches_nothing():
    def refuse(_keys):
        raise NotReady("no store")

    learner = Learner(3, refuse)
    with pytest.raises(NotReady):
        learner.learn(batch_of([1, 2]))
    assert learner.optimizer.squares.keys.size == 0
