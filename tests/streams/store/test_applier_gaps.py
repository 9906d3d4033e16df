"""What is lost, trimmed, foreign, repeated or too new: it halts its shard by name, and the others go on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import pytest

from ekko.schemas.blocks import Lane
from ekko.schemas.codec import encode
from ekko.schemas.errors import BadInput, ConfigurationError, ConnectionFailed, FormatTooNew, GapError
from ekko.schemas.replicas import LanePosition
from ekko.streams.log import Output, Record, TopicSpec
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store.conftest import Open

EXPRESS, BULK = Lane.EXPRESS, Lane.BULK


def test_lanes_emptied_by_retention_while_it_was_down_are_caught_up(lanes: Lanes, open_replica: Open) -> None:
    for _ in range(10):
        lanes.send(EXPRESS, 0)
        lanes.send(BULK, 0)
    replica = open_replica()
    replica.settle(flush=True)
    replica.kill()
    for lane in (EXPRESS, BULK):
        lanes.trim(lanes.partition(lane, 0), 20)
    replica = open_replica()
    replica.settle()
    assert replica.applier.ready
    assert replica.applier.state.shards[0].express == LanePosition(20, 19, 0)
    lanes.send(EXPRESS, 0)
    replica.settle()
    assert replica.rows() == lanes.truth()


def test_a_position_below_what_retention_left_halts_its_shard_only(lanes: Lanes, open_replica: Open) -> None:
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 1)
    replica = open_replica()
    replica.settle(flush=True)
    replica.kill()
    before = lanes.truth()
    lanes.send(EXPRESS, 0, value=50)
    lanes.send(EXPRESS, 0, value=50)
    lanes.send(EXPRESS, 1, value=60)
    lanes.trim(lanes.partition(EXPRESS, 0), 4)
    replica = open_replica()
    replica.settle()
    error = replica.applier.halted[0]
    assert isinstance(error, GapError)
    assert "position 2 < first offset 4, 2 offsets are gone" in error.message
    assert replica.applier.halted.keys() == {0}
    assert replica.applier.unserved == {0}, "it never caught up, so its rows are not to be read"
    assert replica.applier.ready
    mine, others = lanes.keys(0, 3).tolist(), lanes.keys(1, 3).tolist()
    assert {key: replica.rows()[key] for key in mine} == {key: before[key] for key in mine}
    assert {key: replica.rows()[key] for key in others} == {key: lanes.truth()[key] for key in others}
    assert replica.applier.state.shards[0].express.offset == 2, "it does not move: nothing resets by itself"


def test_a_lane_that_cannot_be_read_costs_nothing_that_the_other_has_given(
    lanes: Lanes, open_replica: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = open_replica()
    replica.settle()
    express, bulk = replica.applier._readers._readers[EXPRESS], replica.applier._readers._readers[BULK]
    given: list[Record] = []

    def note(timeout_s: float, limit: int) -> Sequence[Record]:
        given.extend(records := poll(timeout_s, limit))
        return records

    def fail(timeout_s: float, limit: int) -> NoReturn:
        raise ConnectionFailed(f"no answer within {timeout_s} s, asked for {limit} records")

    with monkeypatch.context() as patched:
        poll = express.poll
        patched.setattr(express, "poll", note)
        patched.setattr(bulk, "poll", fail)
        lanes.send(EXPRESS, 0)
        while not given:
            with pytest.raises(ConnectionFailed):
                replica.applier.step(0.0)
    lanes.send(EXPRESS, 0)
    replica.settle()
    assert replica.applier.halted == {}
    assert replica.rows() == lanes.truth()


def test_a_new_replica_whose_lanes_are_trimmed_starts_nothing(lanes: Lanes, open_replica: Open) -> None:
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 1)
    for shard in (0, 1):
        lanes.trim(lanes.partition(EXPRESS, shard), 2)
    replica = open_replica()
    replica.settle()
    assert replica.applier.halted.keys() == {0, 1}
    assert not replica.applier.ready
    assert replica.rows() == {}


def test_retention_that_passes_by_while_it_reads_halts_the_shard(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
    replica.settle()
    lanes.send(EXPRESS, 1)
    replica.settle()
    # Nothing is fetched while records come and go; the readers are put back as if they had been slow.
    for _ in range(3):
        lanes.send(EXPRESS, 0)
    lanes.trim(lanes.partition(EXPRESS, 0), 6)
    replica.applier._readers.assign(replica.applier._progress.positions({}))
    lanes.send(EXPRESS, 1)
    replica.settle()
    assert replica.applier.halted.keys() == {0}
    assert "offsets are gone" in replica.applier.halted[0].message
    keys = lanes.keys(1, 3).tolist()
    assert {key: replica.rows()[key] for key in keys} == {key: lanes.truth()[key] for key in keys}


def test_a_log_made_anew_is_not_taken_for_the_old_one(lanes: Lanes, open_replica: Open) -> None:
    for _ in range(3):
        lanes.send(EXPRESS, 0)
    replica = open_replica()
    replica.settle(flush=True)
    replica.kill()
    topic = lanes.partition(EXPRESS, 0).topic
    lanes.cluster.delete_topics([topic])
    lanes.cluster.create_topics([TopicSpec(topic, 2)])
    replica = open_replica()
    replica.settle()
    assert "position 6 is beyond the log's end 0" in replica.applier.halted[0].message
    assert 1 not in replica.applier.halted


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"seq": 9}, None, None),
        ({"previous": 7}, GapError, "follows seq 7 of its lane, but 1 was applied last"),
        ({"seq": 1, "previous": 1}, GapError, "seq 1 again"),
        ({"incarnation": 10**6}, GapError, "block of incarnation 1000000"),
        ({"region_incarnation": 10**6}, GapError, "in region incarnation 1000000"),
        ({"shard": 1}, GapError, "block of shard 1 in partition 0"),
        ({"table": "nope"}, ConfigurationError, "nope"),
        ({"table": "bias"}, BadInput, "dim 4 for table bias"),
    ],
    ids=["seq-ahead-is-fine", "lost", "again", "incarnation", "region", "shard", "table", "dim"],
)
def test_what_must_not_be_applied_halts_its_shard(
    lanes: Lanes, open_replica: Open, fields: dict[str, object], error: type[Exception] | None, words: str | None
) -> None:
    replica = open_replica()
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 1)
    replica.settle()
    before = lanes.truth()
    right = lanes.block(EXPRESS, 0, table="embedding", keys=lanes.keys(0, 1), deltas=np.ones((1, 4), np.int32))
    block = replace(right, **fields)  # type: ignore[arg-type]
    lanes.write(Output(lanes.partition(EXPRESS, 0), encode(block)))
    lanes.send(EXPRESS, 1)
    replica.settle()
    if error is None:
        assert not replica.applier.halted
        return
    halted = replica.applier.halted
    assert halted.keys() == {0}
    assert isinstance(halted[0], error)
    assert words is not None
    assert words in halted[0].message
    assert replica.applier.state.shards[0].express.offset == 2, "just before what was refused, for a restart"
    mine = lanes.keys(0, 3).tolist()
    assert {key: replica.rows()[key] for key in mine} == {key: before[key] for key in mine}
    assert replica.applier.state.shards[1].contiguous == 2, "the other shard goes on"
    assert replica.applier.ready
    assert not replica.applier.unserved, "its rows are exact, only old: they may be read"


def test_a_format_that_is_too_new_halts_loudly(
    lanes: Lanes, open_replica: Open, caplog: pytest.LogCaptureFixture
) -> None:
    replica = open_replica()
    block = encode(lanes.block(EXPRESS, 0))
    lanes.write(Output(lanes.partition(EXPRESS, 0), block[:3] + b"\x3f" + block[4:]))
    replica.settle()
    assert isinstance(replica.applier.halted[0], FormatTooNew)
    assert "format version 63" in caplog.text
    assert 1 not in replica.applier.halted


def test_strangers_records_are_skipped_and_damaged_ones_of_ours_are_a_gap(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
    partition = lanes.partition(BULK, 0)
    truncated = encode(lanes.block(BULK, 1, table="bias", keys=lanes.keys(1, 1), deltas=np.ones((1, 1), np.int32)))[:-1]
    lanes.send(BULK, 0)
    lanes.write(*(Output(partition, value) for value in (None, b"", b"\x01\x02\x03\x04", b"EKxx", encode(lanes.model))))
    lanes.send(BULK, 0)
    lanes.write(Output(lanes.partition(BULK, 1), truncated))
    lanes.send(BULK, 1)
    replica.settle()
    assert replica.applier.foreign == 6
    assert replica.applier.state.shards[0].contiguous == 2
    assert "follows seq 1 of its lane, but 0 was applied last" in replica.applier.halted[1].message
