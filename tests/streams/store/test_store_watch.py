"""Lags and the watchdog: what counts as standing still, and what does not."""

from ekko.schemas.blocks import Lane
from ekko.schemas.replicas import LanePosition, ReplicaState, ShardPosition
from ekko.streams.applier.bounds import lost
from ekko.streams.log import Bounds, Partition
from ekko.streams.replica.watch import Watchdog, lags, lane_partitions, progress

STATE = ReplicaState(
    "ctr",
    1,
    1,
    {0: ShardPosition(LanePosition(10), LanePosition(4)), 3: ShardPosition(LanePosition(7), LanePosition(0))},
)


def test_lag_is_a_lane_each_and_leaves_halted_shards_out() -> None:
    ends = {"ctr.east.express": {0: 15, 3: 7}, "ctr.east.bulk": {0: 4, 3: 2}}
    bounds = {p: Bounds(0, ends[p.topic][p.number]) for p in lane_partitions(STATE, "east")}
    assert lags(STATE, "east", bounds, ()) == {Lane.EXPRESS: 5, Lane.BULK: 2}
    assert lags(STATE, "east", bounds, {3}) == {Lane.EXPRESS: 5, Lane.BULK: 0}
    assert progress(STATE) == 21


def test_no_progress_with_lag_is_a_stall_after_the_time_allowed() -> None:
    watchdog = Watchdog(stall_s=10)
    assert watchdog.stalled_s("ctr", 5, lag=3, stepped_s=0, now_s=0) == 0
    assert watchdog.stalled_s("ctr", 5, lag=3, stepped_s=9, now_s=9) == 0
    assert watchdog.stalled_s("ctr", 5, lag=3, stepped_s=11, now_s=11) == 11
    assert watchdog.stalled_s("ctr", 6, lag=2, stepped_s=12, now_s=12) == 0, "it has moved"
    assert watchdog.stalled_s("ctr", 6, lag=0, stepped_s=40, now_s=40) == 0, "nothing is left to do"
    assert watchdog.stalled_s("ctr", 6, lag=1, stepped_s=41, now_s=41) == 0, "new work has its time, too"


def test_a_loop_that_hangs_is_a_stall_even_without_lag() -> None:
    watchdog = Watchdog(stall_s=10)
    assert watchdog.stalled_s("ctr", 5, lag=0, stepped_s=0, now_s=5) == 0
    assert watchdog.stalled_s("ctr", 5, lag=0, stepped_s=0, now_s=12) == 12
    watchdog.forget("ctr")
    assert watchdog.stalled_s("ctr", 5, lag=1, stepped_s=13, now_s=13) == 0


def test_a_position_is_lost_only_outside_of_the_log() -> None:
    partition = Partition("ctr.east.bulk", 2)
    assert lost(partition, 7, Bounds(7, 7)) is None, "emptied by retention is caught up"
    assert lost(partition, 7, Bounds(0, 7)) is None
    below, beyond = lost(partition, 50_456, Bounds(75_033, 75_040)), lost(partition, 8, Bounds(0, 7))
    assert below is not None
    assert below.message == "ctr.east.bulk[2]: position 50456 < first offset 75033, 24577 offsets are gone"
    assert beyond is not None
    assert "position 8 is beyond the log's end 7" in beyond.message
