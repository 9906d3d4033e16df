"""Withdrawn states but for the one that a witness keeps, and sums over that one."""

import pytest

from ekko.schemas.blocks import Lane
from ekko.schemas.epochs import EpochRange, without_state
from ekko.schemas.errors import StateUnavailable
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store.conftest import Open


def test_only_the_state_kept_is_left_out() -> None:
    ranges = [EpochRange(2, 4), EpochRange(6, 6), EpochRange(8, 12)]
    assert list(without_state(ranges, None)) == ranges
    assert list(without_state(ranges, 5)) == ranges
    assert list(without_state(ranges, 6)) == [ranges[0], ranges[2]]
    assert list(without_state(ranges, 8)) == [*ranges[:2], EpochRange(9, 12)]
    assert list(without_state(ranges, 10)) == [*ranges[:2], EpochRange(8, 9), EpochRange(11, 12)]


def test_a_witness_is_exact_at_a_withdrawn_state_or_stops_serving_it(lanes: Lanes, open_replica: Open) -> None:
    """It was complete at the state before: nothing sums over that. Else it may happen, and is told."""
    lanes.send(Lane.EXPRESS, 0)
    for _ in range(3):
        lanes.mark(lanes.barrier())
    replica = open_replica(witness=3)
    replica.settle()
    lanes.withdrawn = (EpochRange(1, 4),)
    lanes.mark(lanes.barrier())
    lanes.mark(lanes.barrier())
    lanes.send(Lane.BULK, 0, value=5, arrival=3, effective=3, newest_arrival=5)
    lanes.send(Lane.BULK, 1, value=6, arrival=3, effective=1)  # a retraction keeps its epoch
    replica.settle()
    assert replica.applier.ready
    assert replica.applier.served == 3
    assert replica.rows(as_of=3) == lanes.truth(before_epoch=3)
    assert replica.rows() == lanes.truth()
    lanes.send(Lane.BULK, 1, value=7, arrival=2, effective=2, newest_arrival=4)
    replica.settle()
    assert not replica.applier.ready
    with pytest.raises(StateUnavailable, match=r"state 3 cannot be told: .* sums over epochs 2 to 4"):
        raise replica.applier.stopped or AssertionError("it goes on")


def test_others_apply_what_sums_over_a_withdrawn_state(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
    lanes.send(Lane.BULK, 0, arrival=2, effective=2, newest_arrival=4)
    replica.settle()
    assert replica.applier.ready
    assert replica.rows() == lanes.truth()
    key = lanes.keys(0, 1)
    (slot,) = replica.store._table("embedding").index.find(key)
    assert replica.store._table("embedding").arena.arrivals[slot] == 4, "idle since the newest of the sum"
