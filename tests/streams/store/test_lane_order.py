"""Contiguity over both lanes, against the plain definition, and every kind of break."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.epochs import Barrier, Settled
from ekko.schemas.errors import GapError
from ekko.schemas.replicas import LanePosition, SeqRun, ShardPosition
from ekko.streams.applier.order import LaneOrder

LANES = (Lane.EXPRESS, Lane.BULK)


def block(seq: int, previous: int, settled: int = 0, barrier: Barrier | None = None) -> LaneBlock:
    return LaneBlock(1, 2, 0, seq, previous, settled, settled, 0, Settled(0, settled, 0), 0, barrier=barrier)


def written(lanes: list[Lane], settled: list[int]) -> dict[Lane, list[LaneBlock]]:
    """What a fan-out writes when record n (seq n + 1) goes to `lanes[n]`."""
    blocks: dict[Lane, list[LaneBlock]] = {lane: [] for lane in LANES}
    for number, lane in enumerate(lanes):
        previous = blocks[lane][-1].seq if blocks[lane] else 0
        blocks[lane].append(block(number + 1, previous, settled[number]))
    return blocks


@given(st.data())
def test_any_interleaving_is_contiguous_and_complete_as_defined(data: st.DataObject) -> None:
    lanes = data.draw(st.lists(st.sampled_from(LANES), max_size=30))
    settled = sorted(data.draw(st.lists(st.integers(0, 5), min_size=len(lanes), max_size=len(lanes))))
    waiting = written(lanes, settled)
    order = LaneOrder("ctr/0")
    applied: set[int] = set()
    while any(waiting.values()):
        lane = data.draw(st.sampled_from([lane for lane in LANES if waiting[lane]]))
        taken = waiting[lane].pop(0)
        order.accept(lane, taken, 10 * taken.seq)
        applied.add(taken.seq)
        contiguous = next(seq for seq in range(len(lanes) + 1) if seq + 1 not in applied)
        assert order.contiguous == contiguous
        assert order.complete == max(settled[:contiguous], default=0)
        if data.draw(st.booleans()):  # a restart goes on from the stored position
            position = order.position(1, 2)
            assert {seq for run in position.ahead for seq in range(run.first, run.last + 1)} == {
                seq for seq in applied if seq > contiguous
            }
            order = LaneOrder("ctr/0", position)
    assert order.position(0, 0).ahead == ()


@given(st.data())
def test_a_lost_repeated_or_swapped_record_is_refused_before_anything_changes(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    blocks = written([Lane.EXPRESS] * count, [0] * count)[Lane.EXPRESS]
    broken = data.draw(st.integers(0, count - 2))
    fault = data.draw(st.sampled_from(["lost", "repeated", "swapped"]))
    tampered = {
        "lost": blocks[:broken] + blocks[broken + 1 :],
        "repeated": [*blocks[: broken + 1], *blocks[broken:]],
        "swapped": [*blocks[:broken], blocks[broken + 1], blocks[broken], *blocks[broken + 2 :]],
    }[fault]
    order = LaneOrder("ctr/0")
    good = broken + 1 if fault == "repeated" else broken
    for number, taken in enumerate(tampered[:good]):
        order.accept(Lane.EXPRESS, taken, number)
    before = order.position(good, 0)
    with pytest.raises(GapError, match=rf"offset {good}: seq {tampered[good].seq} .* {good} was applied last"):
        order.accept(Lane.EXPRESS, tampered[good], good)
    assert order.position(good, 0) == before
    assert order.contiguous == good


def test_the_numbers_of_a_gap_are_named() -> None:
    order = LaneOrder("ctr/3")
    order.accept(Lane.EXPRESS, block(1, 0), 0)
    with pytest.raises(
        GapError, match=r"ctr/3, express offset 9: seq 5 follows seq 4 of its lane, but 1 was applied last"
    ):
        order.accept(Lane.EXPRESS, block(5, 4), 9)


def test_a_seq_that_no_lane_can_bring_any_more_is_a_gap() -> None:
    order = LaneOrder("ctr/0")
    order.accept(Lane.EXPRESS, block(1, 0), 0)
    order.accept(Lane.EXPRESS, block(3, 1), 1)  # seq 2 may still come by bulk
    with pytest.raises(GapError, match="seq 2 is missing, yet its lane has reached 4 and the other lane 3"):
        order.accept(Lane.BULK, block(4, 0), 0)
    assert order.position(2, 0) == ShardPosition(
        LanePosition(2, 3), LanePosition(0, 0), contiguous=1, ahead=(SeqRun(3, 3, 0),)
    )


def test_one_seq_in_both_lanes_is_refused() -> None:
    order = LaneOrder("ctr/0")
    order.accept(Lane.EXPRESS, block(1, 0), 0)
    order.accept(Lane.EXPRESS, block(3, 1), 1)
    with pytest.raises(GapError, match="seq 3 again"):
        order.accept(Lane.BULK, block(3, 0), 0)
    with pytest.raises(GapError, match="seq 1 again"):
        order.accept(Lane.BULK, block(1, 0), 0)


def test_a_leader_epoch_that_went_back_is_a_cut_log() -> None:
    order = LaneOrder("ctr/0", ShardPosition(bulk=LanePosition(7, 2, leader_epoch=5), contiguous=2))
    with pytest.raises(GapError, match="bulk offset 7: leader epoch went back from 5 to 3"):
        order.accept(Lane.BULK, block(3, 2), 7, leader_epoch=3)
    order.accept(Lane.BULK, block(3, 2), 7, leader_epoch=-1)  # a log that does not tell it
    assert order.position(0, 8).bulk == LanePosition(8, 3, leader_epoch=5)


def test_complete_waits_for_the_other_lane() -> None:
    order = LaneOrder("ctr/0")
    marker = replace(block(2, 0, settled=4), barrier=Barrier(1, 4, 2, 0))
    order.accept(Lane.EXPRESS, marker, 0)
    assert (order.complete, order.generation) == (0, 2)
    order.accept(Lane.BULK, block(1, 0, settled=0), 0)
    assert order.complete == 4
