"""The pace: fixed, and made up for after a stall."""

import pytest

from ekko.ops.demo.replay import Replay
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions

STREAM = synthetic_interactions(1, SyntheticShape(interactions=1_000, users=20, items=20, periods=2))


def test_batches_come_at_the_rate():
    replay = Replay(STREAM, rate=100, batch=20, position=0, origin=0)
    assert replay.wait_s(0) == pytest.approx(0.2)
    assert replay.wait_s(0.5) == 0
    assert len(replay.take(0.2).labels) == 20
    assert replay.wait_s(0.2) == pytest.approx(0.2)


def test_after_a_stall_batches_grow_within_their_bound():
    replay = Replay(STREAM, rate=100, batch=20, position=0, origin=0)
    assert len(replay.take(1.0).labels) == 100
    assert len(replay.take(10.0).labels) == 160


def test_every_interaction_comes_once_and_then_it_ends():
    replay = Replay(STREAM, rate=1000, batch=30, position=100, origin=100)
    taken = 0
    while not replay.finished:
        taken += len(replay.take(0).labels)
    assert taken == 900
