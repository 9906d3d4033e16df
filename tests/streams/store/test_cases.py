"""Public reports about stores that do not start, hang, or grow, played on ours (CASES groups B, C and 48)."""

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from confluent_kafka import Producer

from ekko.ops.broker import Broker
from ekko.schemas.blocks import Lane
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output
from tests.streams.lanes_by_hand import Lanes, Replica
from tests.streams.store.conftest import Start
from tests.streams.store.test_store_process import caught_up, floats, members, served
from tests.streams.store_child import StoreChild
from tests.waiting import PATIENCE_S

EXPRESS, BULK = Lane.EXPRESS, Lane.BULK
MIB = 1 << 20


def abort_something(broker: Broker, lanes: Lanes) -> None:
    """The last offsets of every lane are records of an aborted transaction, and its marker."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"aborts.{lanes.model.name}"})
    producer.init_transactions(120)
    producer.begin_transaction()
    for lane in Lane:
        for shard in range(lanes.model.shards):
            for _ in range(3):
                producer.produce(lanes.partition(lane, shard).topic, b"never committed", partition=shard)
    producer.flush(120)
    producer.abort_transaction(120)


def test_a_start_waits_for_no_offset_that_nobody_can_read(broker: Broker, lanes: Lanes, start: Start) -> None:
    """Case 18: the last offsets of a lane are a commit marker, or aborted records and a marker: ready all the same."""
    lanes.send(EXPRESS, 0, value=3)
    lanes.send(BULK, 1, value=4)
    for _ in range(2):  # an empty folder, then positions of its own to go on from
        child = start()
        child.wait_ready(lanes.model.name)
        assert served(child, lanes) == floats(lanes.truth())
        assert child.end() == 0
        abort_something(broker, lanes)
    child = start()
    child.wait_ready(lanes.model.name)
    lanes.send(EXPRESS, 1, value=5)
    child.wait("applied", lambda: caught_up(child, lanes))
    assert served(child, lanes) == floats(lanes.truth())
    assert child.get("/health")[1]["halted"] == {}


def test_it_starts_again_with_the_same_name_and_folder_however_often(lanes: Lanes, start: Start) -> None:
    """Case 20: started, ended by SIGTERM, started again, five times; what comes in between is applied once."""
    for number in range(5):
        child = start()
        child.wait_ready(lanes.model.name)
        assert served(child, lanes) == floats(lanes.truth())
        lanes.send(EXPRESS, number % 2, value=number + 1)
        child.wait("applied", lambda child=child: caught_up(child, lanes))  # type: ignore[misc]
        lanes.send(BULK, number % 2, value=10)
        assert child.end() == 0


@pytest.mark.usefixtures("kafka")
def test_a_backlog_far_larger_than_every_buffer_is_caught_up(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    """Case 21: 200,000 rows wait in 2,000 records, 16 KiB of records are fetched ahead: a start gets through them."""
    small = {"queued.max.messages.kbytes": "16", "queued.min.messages": "10", "fetch.message.max.bytes": "16384"}
    with closing(KafkaCluster(broker.bootstrap, small)) as cluster:
        lanes = Lanes(broker, cluster, topic_prefix)
        rng = np.random.default_rng(1)
        keys = {shard: lanes.keys(shard, 5_000) for shard in (0, 1)}
        for _ in range(20):
            lanes.write(*(_some_rows(lanes, EXPRESS if number % 4 else BULK, keys, rng) for number in range(100)))
        replica = Replica(lanes, tmp_path / "store")
        begun = time.monotonic()
        while not replica.applier.ready:
            replica.applier.step(time.monotonic(), 0.1)
            assert time.monotonic() - begun < 300, "it hangs"
        assert sum(position.contiguous for position in replica.applier.state.shards.values()) == 2_000
        assert replica.rows() == lanes.truth()
        replica.kill()
        lanes.close()


def _some_rows(lanes: Lanes, lane: Lane, keys: dict[int, np.ndarray], rng: np.random.Generator) -> Output:
    shard = int(rng.integers(2))
    some = rng.choice(keys[shard], 100, replace=False)
    return lanes.rows_block(lane, shard, some, rng.integers(-1000, 1000, (100, 4), dtype=np.int32))


@pytest.mark.chaos
def test_replicas_on_one_volume_join_and_leave(
    broker: Broker, kafka: KafkaCluster, topic_prefix: str, tmp_path: Path
) -> None:
    """Case 25: 32 shards, two replicas on one volume: who joins or takes a folder over waits for nobody's locks."""
    lanes = Lanes(broker, kafka, topic_prefix, shards=32)
    volume = tmp_path / "volume"
    volume.mkdir()

    def opened(replica: str, shards: str) -> StoreChild:
        child = StoreChild(broker, lanes.region_name, volume / replica, "--shards", shards, replica=replica)
        children.append(child)
        return child

    def progress(*holders: StoreChild) -> None:
        """Every shard gets a block, and whoever holds it applies it in the end."""
        lanes.write(*(lanes.rows_block(EXPRESS, shard, lanes.keys(shard, 1), one) for shard in range(32)))
        for child in holders:
            child.wait_ready(lanes.model.name)
            child.wait("applied", lambda child=child: caught_up(child, lanes))  # type: ignore[misc]

    children: list[StoreChild] = []
    one = np.ones((1, 4), np.int32)
    try:
        alone = opened("a", "0-31")
        progress(alone)
        progress(alone, opened("b", "16-31"))  # one joins
        assert alone.end() == 0
        progress(children[1], opened("c", "0-15"))  # the first leaves, and another has its half
        for way in (StoreChild.end, StoreChild.kill):
            way(children[-1])  # the next owner opens the same folder at once
            progress(children[1], opened("c", "0-15"))
        assert children[1].end() == 0
        rows = floats(lanes.truth())
        held = served_by(children[-1], lanes, range(16))
        assert held == {key: rows[key] for key in held}
        assert len(held) == 16
    finally:
        for child in children:
            child.kill()
        lanes.close()


def served_by(child: StoreChild, lanes: Lanes, shards: range) -> dict[int, list[float]]:
    keys = np.concatenate([lanes.keys(shard, 1) for shard in shards])
    with child.client(lanes.model.name) as client:
        return dict(zip(keys.tolist(), client.lookup("embedding", keys).values.tolist(), strict=True))


def test_a_damaged_folder_is_named_and_made_anew_only_from_a_log_that_reaches_back(
    lanes: Lanes, start: Start, tmp_path: Path
) -> None:
    """Case 26: flipped bytes end the start with the path and the remedy; the remedy works, or is refused."""
    child = start()
    child.wait_ready(lanes.model.name)
    lanes.send(EXPRESS, 0, value=3)
    lanes.send(BULK, 1, value=4)
    child.wait("applied", lambda: caught_up(child, lanes))
    assert child.end() == 0
    for file in (tmp_path / "store").glob("**/*.sst"):
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
    hurt = start()
    assert hurt.process.wait(120) == 1
    said = hurt.log.read_text()
    assert f"store {tmp_path / 'store'}" in said
    assert "move the folder away" in said
    (tmp_path / "store").rename(tmp_path / "moved")
    anew = start()
    anew.wait_ready(lanes.model.name)
    assert served(anew, lanes) == floats(lanes.truth())
    anew.kill()
    lanes.trim(lanes.partition(EXPRESS, 0), 1)
    short = start(folder="empty")
    short.wait("refused", lambda: bool(short.get("/health")[1].get("halted")))
    halted = short.get("/health")[1]["halted"]
    assert set(halted) == {f"{lanes.model.name}/0"}
    assert "offsets are gone" in halted[f"{lanes.model.name}/0"]


def flushes(lanes: Lanes) -> set[int]:
    """Positions of shard 0 that were told to be on disk, but for an empty store's."""
    durable = [state for member in members(lanes) for state in member.durable if state.model == lanes.model.name]
    return {state.shards[0].contiguous for state in durable} - {0}


def test_rows_over_http_are_never_older_than_the_position_told_with_them(lanes: Lanes, start: Start) -> None:
    """Case 27: through flushes every two seconds and one at the end, the row tells what its position says."""
    child = start()
    child.wait_ready(lanes.model.name)
    key, seen, deadline = lanes.keys(0, 1), [], time.monotonic() + 2 * PATIENCE_S
    with child.client(lanes.model.name) as client:
        while lanes.seqs[0] <= 10 or len(flushes(lanes)) < 3:
            assert time.monotonic() < deadline
            lanes.write(lanes.rows_block(EXPRESS if len(seen) % 3 else BULK, 0, key, np.ones((1, 4), np.int32)))
            for _ in range(5):
                rows = client.lookup("embedding", key)
                seen.append((rows.state.shards[0].contiguous, round(float(rows.values[0, 0]) * 2**24)))
        child.wait("applied", lambda: caught_up(child, lanes))
        last = client.lookup("embedding", key)
    assert all(value >= position for position, value in seen), "older than told"
    assert seen == sorted(seen), "it went back"
    assert round(float(last.values[0, 0]) * 2**24) == last.state.shards[0].contiguous == lanes.seqs[0] > 10


def test_memory_does_not_grow_with_partitions(broker: Broker, kafka: KafkaCluster, lanes: Lanes, start: Start) -> None:
    """Case 48: a model of 64 shards in a process that already serves one of 2 takes its rows, not 64 times anything."""
    child = start("--memory", "64MiB")
    child.wait_ready(lanes.model.name)
    lanes.send(EXPRESS, 0)
    child.wait("applied", lambda: caught_up(child, lanes))
    process = psutil.Process(child.process.pid)
    before = process.memory_info().rss
    wide = Lanes(broker, kafka, f"{lanes.model.name}-64", shards=64, region=lanes.region_name)
    child.wait_ready(wide.model.name)
    keys = {shard: wide.keys(shard, 1_000) for shard in range(64)}
    deltas = np.ones((1_000, 4), np.int32)
    for _ in range(4):
        for lane in Lane:
            for first in range(0, 64, 8):  # short transactions, whatever else the machine does
                some = range(first, first + 8)
                wide.write(*(wide.rows_block(lane, shard, keys[shard], deltas) for shard in some))
        wide.mark(wide.barrier())
    child.wait("applied", lambda: caught_up(child, wide))
    assert process.memory_info().rss - before < 64 * MIB
    wide.close()
