"""Voids, learnt early, late, or in the time it was down: undone before it serves, and durable at once."""

from pathlib import Path

import pytest

from ekko.schemas.blocks import Lane
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StateUnavailable, StoreUnwritable
from ekko.storage.disk import flush
from tests.streams.lanes_by_hand import Lanes, Replica
from tests.streams.store.conftest import Open
from tests.waiting import wait_for

EXPRESS, BULK = Lane.EXPRESS, Lane.BULK


def test_a_void_from_the_control_topic_is_undone_and_made_durable_at_once(lanes: Lanes, open_replica: Open) -> None:
    lanes.send(EXPRESS, 0)
    lanes.mark(lanes.barrier())
    replica = open_replica()
    lanes.send(EXPRESS, 0, value=40)
    lanes.send(BULK, 1, value=41)
    replica.settle()
    assert replica.rows() == lanes.truth()
    barrier = lanes.barrier(void=EpochRange(1, 1))
    lanes.control(barrier)
    replica.settle()
    assert replica.rows() == lanes.truth()
    assert replica.applier.state.voids == (EpochRange(1, 1),)
    replica.kill()  # waits for the flush that the void asked for, as its thread would have gone on
    replica = open_replica()
    assert replica.applier.state.voids == (EpochRange(1, 1),)
    assert replica.rows() == lanes.truth()
    lanes.mark(barrier)
    lanes.send(BULK, 0, value=5, arrival=1, effective=1)  # late: arrives after its epoch became void
    replica.settle()
    assert replica.rows() == lanes.truth()
    assert replica.applier.state.shards[0].generation == 1


def test_a_void_gives_up_a_flush_that_is_being_copied_and_the_next_one_begins_at_once(
    lanes: Lanes, open_replica: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes.send(EXPRESS, 0)
    lanes.mark(lanes.barrier())
    replica = open_replica()
    lanes.send(EXPRESS, 0, value=40)
    replica.settle(flush=True)
    lanes.send(BULK, 1, value=41)
    replica.settle()
    trouble = replica.applier.unwritable = StoreUnwritable("the flush before failed")
    monkeypatch.setattr(flush, "_COPIED_AT_ONCE", 0)
    replica.now_s += 60
    replica.settle()
    assert replica.store.flushing
    barrier = lanes.barrier(void=EpochRange(1, 1))
    lanes.control(barrier)
    replica.settle()
    assert replica.store.flushing, "the next one"
    assert replica.store.flushed is not None
    assert replica.store.flushed.voids == ()
    assert replica.rows() == lanes.truth()
    assert replica.applier.unwritable is trouble, "none has succeeded since"
    monkeypatch.undo()

    def ended() -> bool:
        replica.applier.step(replica.now_s)
        return not replica.store.flushing

    wait_for(ended)
    assert replica.store.flushed.voids == (EpochRange(1, 1),)
    assert replica.applier.unwritable is None
    replica.kill()
    assert open_replica().rows() == lanes.truth()


@pytest.mark.parametrize("by", ["control", "marker"])
def test_voids_of_the_time_it_was_down_are_undone_before_it_is_ready(lanes: Lanes, open_replica: Open, by: str) -> None:
    lanes.mark(lanes.barrier())
    replica = open_replica()
    lanes.send(EXPRESS, 0, value=40)
    replica.settle(flush=True)
    replica.kill()
    barrier = lanes.barrier(void=EpochRange(1, 1))
    if by == "control":
        lanes.control(barrier)
    else:
        lanes.mark(barrier)
    lanes.send(EXPRESS, 1, value=6)
    replica = open_replica()
    while not replica.applier.ready:
        replica.applier.step(0.0, 0.1)
    assert replica.rows() == lanes.truth()
    assert replica.applier.state.voids == (EpochRange(1, 1),)


def test_overlapping_voids_and_states_that_are_left(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
    for epoch in range(1, 5):
        lanes.send(EXPRESS, 0, value=epoch)
        lanes.send(BULK, 1, value=10 * epoch)
        lanes.mark(lanes.barrier())
    lanes.mark(lanes.barrier(void=EpochRange(3, 4)))
    lanes.send(EXPRESS, 0, value=1000)
    replica.settle()
    lanes.mark(lanes.barrier(void=EpochRange(2, 5)))
    replica.settle()
    assert replica.rows() == lanes.truth()
    for state in (0, 1, 2, 6):
        assert replica.rows(as_of=state) == lanes.truth(before_epoch=state)


def test_a_replica_that_cannot_undo_stops_serving_and_is_right_again_from_a_snapshot(
    lanes: Lanes, open_replica: Open, tmp_path: Path
) -> None:
    """Its journals are gone (they had outgrown the disk's share); those of a snapshot are not."""
    replica = open_replica()
    for value in (40, 41, 42):
        lanes.send(EXPRESS, 0, value=value)
        lanes.mark(lanes.barrier())
    replica.settle(flush=True)
    replica.store.checkpoint(tmp_path / "snapshot")
    replica.store.raise_bound(3)
    lanes.mark(lanes.barrier(void=EpochRange(1, 3)))
    before = replica.rows()
    replica.settle()
    assert isinstance(replica.applier.stopped, StateUnavailable)
    assert "below this replica's bound 3" in replica.applier.stopped.message
    assert not replica.applier.ready, "nobody gets rows that are known to be bad"
    assert replica.rows() == before != lanes.truth()
    again = Replica(lanes, tmp_path / "snapshot")
    again.settle()
    assert again.applier.ready
    assert again.rows() == lanes.truth()
    again.stop()
