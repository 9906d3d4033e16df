"""Lanes -> rows on the real broker: exactly once, in any order, whatever is lost, trimmed, foreign or too new."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from ekko.ops.broker import Broker
from ekko.schemas.blocks import Lane
from ekko.schemas.codec import encode
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import BadInput, ConfigurationError, FormatTooNew, GapError, MemoryExhausted
from ekko.schemas.replicas import LanePosition
from ekko.streams.declaring import declare
from ekko.streams.declaring_plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, TopicSpec
from tests.streams.lanes_by_hand import Lanes, Replica

EXPRESS, BULK = Lane.EXPRESS, Lane.BULK
Open = Callable[..., Replica]


@pytest.fixture
def lanes(broker: Broker, kafka: KafkaCluster, topic_prefix: str) -> Iterator[Lanes]:
    lanes = Lanes(broker, kafka, topic_prefix)
    yield lanes
    lanes.close()


@pytest.fixture
def start(lanes: Lanes, tmp_path: Path) -> Iterator[Open]:
    """Starts the replica; a second call, after `kill` or `stop`, starts it again on the same folder."""
    replicas: list[Replica] = []

    def open_replica(**options: object) -> Replica:
        replicas.append(Replica(lanes, tmp_path / "store", **options))  # type: ignore[arg-type]
        return replicas[-1]

    yield open_replica
    replicas[-1].kill()


def test_rows_of_both_lanes_add_up_and_the_vector_says_where_it_stands(lanes: Lanes, start: Open) -> None:
    lanes.send(BULK, 0, 3)
    lanes.send(EXPRESS, 0, 2, 10)
    lanes.send(EXPRESS, 1, 3, -7)
    lanes.send(EXPRESS, 0, 3, 5, table="bias")
    lanes.mark(lanes.barrier())
    replica = start()
    assert not replica.applier.ready
    replica.settle()
    assert replica.applier.ready
    assert replica.rows() == lanes.truth()
    assert replica.rows("bias") == lanes.truth("bias")
    first = replica.applier.state.shards[0]
    # Offsets have holes: every transaction ends with a marker, and the position is past the last one.
    assert (first.express.offset, first.express.seq) == (6, 4)
    assert (first.bulk.offset, first.bulk.seq) == (2, 1)
    assert (first.contiguous, first.ahead, first.complete) == (4, (), 1)
    assert replica.applier.state.complete == 1
    assert replica.applier.state.catalogue == lanes.catalogue.end


def test_many_small_blocks_of_repeating_keys_in_one_poll(lanes: Lanes, start: Open) -> None:
    rng = np.random.default_rng(7)
    outputs = []
    for number in range(300):
        shard, lane = number % 2, EXPRESS if rng.random() < 0.5 else BULK
        keys = lanes.keys(shard, int(rng.integers(1, 8)), rng)
        deltas = rng.integers(-(2**31), 2**31, (len(keys), 4), dtype=np.int32)
        outputs.append(lanes.rows_block(lane, shard, keys, deltas))
        if number % 50 == 49:
            lanes.epoch += 1
    lanes.write(*outputs)
    replica = start()
    replica.settle()
    with np.errstate(over="ignore"):
        assert replica.rows() == lanes.truth()
        assert replica.rows(as_of=3) == lanes.truth(before_epoch=3)
    assert replica.applier.state.shards[0].contiguous == 150


def test_after_a_kill_nothing_is_lost_or_added_twice(lanes: Lanes, start: Open) -> None:
    replica = start()
    for round_number in range(4):
        lanes.send(BULK, 0, 3)
        lanes.send(EXPRESS, 1, 3)
        replica.settle(flush=round_number % 2 == 0)
        lanes.send(EXPRESS, 0, 2, 100)
        replica.settle()
        replica.kill()
        replica = start()
        assert replica.applier.state == replica.store.flushed
        replica.settle()
        assert replica.rows() == lanes.truth()
    replica.stop()
    replica = start()
    assert replica.rows() == lanes.truth(), "a stop in good order leaves nothing to be read again"


def test_a_backlog_is_caught_up_before_it_is_ready(lanes: Lanes, start: Open) -> None:
    lanes.write(
        *(
            lanes.rows_block(BULK, 0, lanes.keys(0, 3), np.ones((3, 4), np.int32))
            for _ in range(1_500)  # more than one poll may bring
        )
    )
    replica = start()
    seen = []
    for _ in range(200):
        replica.applier.step(0.0, 0.1)
        seen.append((replica.applier.ready, replica.applier.state.shards[0].contiguous))
        if replica.applier.ready:
            break
    assert all(contiguous == 1_500 for ready, contiguous in seen if ready)
    assert replica.rows() == lanes.truth()


def test_lanes_emptied_by_retention_while_it_was_down_are_caught_up(lanes: Lanes, start: Open) -> None:
    for _ in range(10):
        lanes.send(EXPRESS, 0)
        lanes.send(BULK, 0)
    replica = start()
    replica.settle(flush=True)
    replica.kill()
    for lane in (EXPRESS, BULK):
        lanes.trim(lanes.partition(lane, 0), 20)
    replica = start()
    begun = time.monotonic()
    replica.settle()
    assert replica.applier.ready
    assert time.monotonic() - begun < 5
    assert replica.applier.state.shards[0].express == LanePosition(20, 19, 0)
    lanes.send(EXPRESS, 0)
    replica.settle()
    assert replica.rows() == lanes.truth()


def test_a_position_below_what_retention_left_halts_its_shard_only(lanes: Lanes, start: Open) -> None:
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 1)
    replica = start()
    replica.settle(flush=True)
    replica.kill()
    before = lanes.truth()
    lanes.send(EXPRESS, 0, value=50)
    lanes.send(EXPRESS, 0, value=50)
    lanes.send(EXPRESS, 1, value=60)
    lanes.trim(lanes.partition(EXPRESS, 0), 4)
    replica = start()
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


def test_a_new_replica_whose_lanes_are_trimmed_starts_nothing(lanes: Lanes, start: Open) -> None:
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 1)
    for shard in (0, 1):
        lanes.trim(lanes.partition(EXPRESS, shard), 2)
    replica = start()
    replica.settle()
    assert replica.applier.halted.keys() == {0, 1}
    assert not replica.applier.ready
    assert replica.rows() == {}


def test_retention_that_passes_by_while_it_reads_halts_the_shard(lanes: Lanes, start: Open) -> None:
    replica = start()
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


def test_a_log_made_anew_is_not_taken_for_the_old_one(lanes: Lanes, start: Open) -> None:
    for _ in range(3):
        lanes.send(EXPRESS, 0)
    replica = start()
    replica.settle(flush=True)
    replica.kill()
    topic = lanes.partition(EXPRESS, 0).topic
    lanes.cluster.delete_topics([topic])
    lanes.cluster.create_topics([TopicSpec(topic, 2)])
    replica = start()
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
    lanes: Lanes, start: Open, fields: dict[str, object], error: type[Exception] | None, words: str | None
) -> None:
    replica = start()
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


def test_a_format_that_is_too_new_halts_loudly(lanes: Lanes, start: Open, caplog: pytest.LogCaptureFixture) -> None:
    replica = start()
    block = encode(lanes.block(EXPRESS, 0))
    lanes.write(Output(lanes.partition(EXPRESS, 0), block[:3] + b"\x63" + block[4:]))
    replica.settle()
    assert isinstance(replica.applier.halted[0], FormatTooNew)
    assert "format version 99" in caplog.text
    assert 1 not in replica.applier.halted


def test_strangers_records_are_skipped_and_damaged_ones_of_ours_are_a_gap(lanes: Lanes, start: Open) -> None:
    replica = start()
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


def test_a_void_from_the_control_topic_is_undone_and_made_durable_at_once(lanes: Lanes, start: Open) -> None:
    lanes.send(EXPRESS, 0)
    lanes.mark(lanes.barrier())
    replica = start()
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
    replica = start()
    assert replica.applier.state.voids == (EpochRange(1, 1),)
    assert replica.rows() == lanes.truth()
    lanes.mark(barrier)
    lanes.send(BULK, 0, value=5, arrival=1, effective=1)  # late: arrives after its epoch became void
    replica.settle()
    assert replica.rows() == lanes.truth()
    assert replica.applier.state.shards[0].generation == 1


@pytest.mark.parametrize("by", ["control", "marker"])
def test_voids_of_the_time_it_was_down_are_undone_before_it_is_ready(lanes: Lanes, start: Open, by: str) -> None:
    lanes.mark(lanes.barrier())
    replica = start()
    lanes.send(EXPRESS, 0, value=40)
    replica.settle(flush=True)
    replica.kill()
    barrier = lanes.barrier(void=EpochRange(1, 1))
    if by == "control":
        lanes.control(barrier)
    else:
        lanes.mark(barrier)
    lanes.send(EXPRESS, 1, value=6)
    replica = start()
    while not replica.applier.ready:
        replica.applier.step(0.0, 0.1)
    assert replica.rows() == lanes.truth()
    assert replica.applier.state.voids == (EpochRange(1, 1),)


def test_overlapping_voids_and_states_that_are_left(lanes: Lanes, start: Open) -> None:
    replica = start()
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


def test_the_catalogue_is_reached_before_a_block_that_names_more_of_it(lanes: Lanes, start: Open) -> None:
    replica = start()
    replica.settle()
    extra = TableDeclaration("extra", 2)
    grown = replace(lanes.model, tables=(*lanes.model.tables, extra))
    declare(lanes.cluster, Declarations((), (replace(grown, incarnation=None),)), KafkaCluster)
    lanes.catalogue.refresh()
    lanes.model = lanes.catalogue.model(lanes.model.name)
    lanes.send(EXPRESS, 0, table="extra")
    replica.settle()
    assert replica.rows("extra") == lanes.truth("extra")
    assert replica.applier.model.table("extra") == extra
    assert replica.applier.state.catalogue == lanes.catalogue.end


def test_a_catalogue_that_is_not_there_yet_holds_the_block_back(lanes: Lanes, start: Open) -> None:
    replica = start()
    replica.settle()
    ahead = lanes.catalogue.end + 1
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 0, catalogue=ahead)
    for _ in range(3):
        replica.applier.step(0.0, 0.1)
    assert replica.applier.state.shards[0].contiguous == 1
    assert not replica.applier.halted
    declare(
        lanes.cluster, Declarations((), (replace(lanes.model, incarnation=None, max_rows_a_block=99),)), KafkaCluster
    )
    replica.settle()
    assert replica.applier.state.shards[0].contiguous == 2
    assert replica.rows() == lanes.truth()


def test_a_replica_of_some_shards_reads_no_others(lanes: Lanes, start: Open) -> None:
    replica = start(shards=[1])
    lanes.send(EXPRESS, 0)
    lanes.send(BULK, 1)
    replica.settle()
    assert replica.applier.state.shards.keys() == {1}
    keys = set(lanes.keys(1, 3).tolist())
    assert replica.rows() == {key: row for key, row in lanes.truth().items() if key in keys}


def test_topics_with_more_partitions_than_shards_are_refused(lanes: Lanes, start: Open, broker: Broker) -> None:
    topic = lanes.partition(BULK, 0).topic
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(10)
    deadline = time.monotonic() + 10
    while lanes.cluster.topics()[topic] != 4:
        assert time.monotonic() < deadline
    replica = start()
    with pytest.raises(ConfigurationError, match="has 4 partitions, but its model has 2 shards"):
        replica.applier.step(0.0)


def test_at_its_memory_bound_it_stops_and_stays_right_on_disk(lanes: Lanes, start: Open) -> None:
    lanes.send(EXPRESS, 0)
    replica = start(memory_bytes=4 * 1024 * 1024)
    replica.settle(flush=True)
    before = lanes.truth()
    keys = lanes.keys(0, 60_000)
    lanes.write(lanes.rows_block(EXPRESS, 0, keys, np.ones((len(keys), 4), np.int32)))
    lanes.send(EXPRESS, 1)
    replica.settle()
    assert isinstance(replica.applier.stopped, MemoryExhausted)
    assert not replica.applier.ready or replica.applier.halted.keys() == {0, 1}
    replica.stop()
    replica = start(memory_bytes=512 * 1024 * 1024)
    assert replica.rows() == before
    replica.settle()
    assert replica.rows() == lanes.truth()


def test_latencies_are_told_a_block_and_catching_up_is_kept_apart(lanes: Lanes, start: Open) -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[tuple[Lane, int, list[float], bool]] = []

        def applied(self, lane: Lane, rows: int, latencies_ms: list[float], *, recovering: bool) -> None:
            self.seen.append((lane, rows, latencies_ms, recovering))

    def ago_us(seconds: float) -> int:
        return int((time.time() - seconds) * 1e6)

    lanes.send(EXPRESS, 0, published_us=ago_us(3))
    observer = Observer()
    replica = start(observer=observer)
    replica.settle()
    lanes.mark(lanes.barrier())
    lanes.send(BULK, 1, published_us=ago_us(2))
    replica.settle()
    (first, second) = observer.seen
    assert (first[0], first[1], first[3]) == (EXPRESS, 3, True)
    assert (second[0], second[1], second[3]) == (BULK, 3, False)
    assert 3_000 <= first[2][0] < 20_000
    assert 2_000 <= second[2][0] < 20_000
