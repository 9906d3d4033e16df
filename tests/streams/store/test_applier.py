"""Lanes -> rows on the real broker: exactly once, in any order, after any crash."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from ekko.ops.broker import Broker
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import ConfigurationError, MemoryExhausted
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store.conftest import Open
from tests.waiting import PATIENCE_S, wait_for

EXPRESS, BULK = Lane.EXPRESS, Lane.BULK


def test_rows_of_both_lanes_add_up_and_the_vector_says_where_it_stands(lanes: Lanes, open_replica: Open) -> None:
    lanes.send(BULK, 0, 3)
    lanes.send(EXPRESS, 0, 2, 10)
    lanes.send(EXPRESS, 1, 3, -7)
    lanes.send(EXPRESS, 0, 3, 5, table="bias")
    lanes.mark(lanes.barrier())
    replica = open_replica()
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


def test_many_small_blocks_of_repeating_keys_in_one_poll(lanes: Lanes, open_replica: Open) -> None:
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
    replica = open_replica()
    replica.settle()
    with np.errstate(over="ignore"):
        assert replica.rows() == lanes.truth()
        assert replica.rows(as_of=3) == lanes.truth(before_epoch=3)
    assert replica.applier.state.shards[0].contiguous == 150


def test_after_a_kill_nothing_is_lost_or_added_twice(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
    for round_number in range(4):
        lanes.send(BULK, 0, 3)
        lanes.send(EXPRESS, 1, 3)
        replica.settle(flush=round_number % 2 == 0)
        lanes.send(EXPRESS, 0, 2, 100)
        replica.settle()
        replica.kill()
        replica = open_replica()
        assert replica.applier.state == replica.store.flushed
        replica.settle()
        assert replica.rows() == lanes.truth()
    replica.stop()
    replica = open_replica()
    assert replica.rows() == lanes.truth(), "a stop in good order leaves nothing to be read again"


def test_a_backlog_is_caught_up_before_it_is_ready(lanes: Lanes, open_replica: Open) -> None:
    lanes.write(
        *(
            lanes.rows_block(BULK, 0, lanes.keys(0, 3), np.ones((3, 4), np.int32))
            for _ in range(1_500)  # more than one poll may bring
        )
    )
    replica = open_replica()
    seen = []
    while not replica.applier.ready:
        replica.applier.step(0.0, 0.1)
        seen.append((replica.applier.ready, replica.applier.state.shards[0].contiguous))
    assert seen[-1] == (True, 1_500), "ready with the last record, not before"
    assert replica.rows() == lanes.truth()


def test_the_catalogue_is_reached_before_a_block_that_names_more_of_it(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
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


def test_a_catalogue_that_is_not_there_yet_holds_the_block_back(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica()
    replica.settle()
    ahead = lanes.catalogue.end + 1
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 0, catalogue=ahead)
    deadline = time.monotonic() + PATIENCE_S
    while replica.applier.state.shards[0].contiguous < 1:
        assert time.monotonic() < deadline
        replica.applier.step(0.0, 0.1)
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


def test_a_hot_key_only_rises_for_readers_and_ends_exact(lanes: Lanes, open_replica: Open) -> None:
    key, one = lanes.keys(0, 1), np.ones((1, 4), np.int32)
    count = 10_000
    replica = open_replica()
    lanes.write(*(lanes.rows_block(EXPRESS if n % 3 else BULK, 0, key, one) for n in range(count)))
    seen: list[list[int]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(replica.store.lookup("embedding", key)[0][0].tolist())

    reader = threading.Thread(target=read)
    reader.start()
    replica.settle()
    done.set()
    reader.join()
    read()
    assert all(len(set(row)) == 1 for row in seen), "never half of a row"
    firsts = [row[0] for row in seen]
    assert firsts == sorted(firsts)
    assert replica.rows() == {int(key[0]): [count] * 4}


def test_a_replica_of_some_shards_reads_no_others(lanes: Lanes, open_replica: Open) -> None:
    replica = open_replica(shards=[1])
    lanes.send(EXPRESS, 0)
    lanes.send(BULK, 1)
    replica.settle()
    assert replica.applier.state.shards.keys() == {1}
    keys = set(lanes.keys(1, 3).tolist())
    assert replica.rows() == {key: row for key, row in lanes.truth().items() if key in keys}


def test_topics_with_more_partitions_than_shards_are_refused(lanes: Lanes, open_replica: Open, broker: Broker) -> None:
    topic = lanes.partition(BULK, 0).topic
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(120)
    wait_for(lambda: lanes.cluster.topics()[topic] == 4)
    replica = open_replica()
    with pytest.raises(ConfigurationError, match="has 4 partitions, but its model has 2 shards"):
        replica.applier.step(0.0)


def test_at_its_memory_bound_it_stops_and_stays_right_on_disk(lanes: Lanes, open_replica: Open) -> None:
    lanes.send(EXPRESS, 0)
    replica = open_replica(memory_bytes=4 * 1024 * 1024)
    replica.settle(flush=True)
    before = lanes.truth()
    keys = lanes.keys(0, 60_000)
    lanes.write(lanes.rows_block(EXPRESS, 0, keys, np.ones((len(keys), 4), np.int32)))
    lanes.send(EXPRESS, 1)
    replica.settle()
    assert isinstance(replica.applier.stopped, MemoryExhausted)
    assert replica.applier.halted.keys() == {0, 1}
    replica.stop()
    replica = open_replica(memory_bytes=512 * 1024 * 1024)
    assert replica.rows() == before
    replica.settle()
    assert replica.rows() == lanes.truth()


def test_latencies_are_told_a_block_and_catching_up_is_kept_apart(lanes: Lanes, open_replica: Open) -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[tuple[Lane, int, list[float], bool]] = []

        def applied(self, lane: Lane, rows: int, latencies_ms: list[float], *, recovering: bool) -> None:
            self.seen.append((lane, rows, latencies_ms, recovering))

    def ago_us(seconds: float) -> int:
        return int((time.time() - seconds) * 1e6)

    begun = time.time()
    lanes.send(EXPRESS, 0, published_us=ago_us(3))
    observer = Observer()
    replica = open_replica(observer=observer)
    replica.settle()
    lanes.mark(lanes.barrier())
    lanes.send(BULK, 1, published_us=ago_us(2))
    replica.settle()
    (first, second) = observer.seen
    assert (first[0], first[1], first[3]) == (EXPRESS, 3, True)
    assert (second[0], second[1], second[3]) == (BULK, 3, False)
    spent_ms = 1e3 * (time.time() - begun)
    assert 3_000 <= first[2][0] < 3_001 + spent_ms
    assert 2_000 <= second[2][0] < 2_001 + spent_ms
