"""`ekko store` as a real process on the real broker: served rows, kill -9, two on a folder, models that come and go."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import EpochRange
from ekko.schemas.hashing import checksum
from ekko.schemas.quantize import to_float
from ekko.schemas.replicas import Member
from ekko.schemas.signals import Signal
from ekko.streams.catalogue.declaring import delete_model
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store.conftest import Start
from tests.streams.store_child import StoreChild
from tests.waiting import wait_for

EXPRESS, BULK = Lane.EXPRESS, Lane.BULK


def served(child: StoreChild, lanes: Lanes, table: str = "embedding") -> dict[int, list[float]]:
    """Rows of every key that the truth knows, as a serving process reads them."""
    keys = np.array(sorted({key for _, _, keys, _ in lanes.rows for key in keys.tolist()}), np.uint64)
    with child.client(lanes.model.name) as client:
        rows = client.lookup(table, keys)
    values = zip(keys.tolist(), rows.found.tolist(), rows.values.tolist(), strict=True)
    return {key: row for key, found, row in values if found}


def floats(truth: dict[int, list[int]]) -> dict[int, list[float]]:
    return {key: to_float(np.array([row], np.int32), 24)[0].tolist() for key, row in truth.items()}


def caught_up(child: StoreChild, lanes: Lanes) -> bool:
    """Whether everything that was written is applied."""
    with child.client(lanes.model.name) as client:
        state = client.state()
    return all(position.contiguous == lanes.seqs[shard] for shard, position in state.shards.items())


def members(lanes: Lanes) -> list[Member]:
    """What the region's replicas have announced so far."""
    records = read_all(lanes.cluster, topics.members(lanes.region_name))
    return [Codec().decode(record.value) for record in records if record.value is not None]


def flushed(lanes: Lanes) -> bool:
    """Whether everything that was written is on the disk of the replica that was heard last."""
    durable = [state for state in members(lanes)[-1].durable if state.model == lanes.model.name]
    return any(all(at.contiguous == lanes.seqs[shard] for shard, at in state.shards.items()) for state in durable)


def test_rows_are_served_and_the_region_hears_of_it(lanes: Lanes, start: Start) -> None:
    child = start()
    child.wait_ready(lanes.model.name)
    begun = time.monotonic()
    lanes.send(EXPRESS, 0, value=3, published_us=time.time_ns() // 1000)
    lanes.send(BULK, 1, value=5, published_us=time.time_ns() // 1000)
    lanes.mark(lanes.barrier())
    child.wait("applied", lambda: caught_up(child, lanes))
    assert served(child, lanes) == floats(lanes.truth())
    with child.client(lanes.model.name) as client:
        client.report("requests", 7, 7)
        latency = client.latency()
        assert (latency.express.count, latency.bulk.count, latency.all.count) == (1, 1, 2)
        assert 0 < latency.all.p50 <= latency.all.p99 <= latency.all.max < 1e3 * (time.monotonic() - begun)
        truth = lanes.truth()
        rows = np.array(list(truth.values()), np.int32)
        summed = client.checksum("embedding", as_of=1)
        assert (summed.checksum, summed.rows) == (
            checksum("embedding", np.array(list(truth), np.uint64), rows),
            len(rows),
        )

    def durable_complete() -> bool:
        last = members(lanes)[-1]
        return last.ready and any(s.model == lanes.model.name and s.complete == 1 for s in last.durable)

    child.wait("durable", durable_complete)
    last = members(lanes)[-1]
    assert (last.region, last.replica, last.address) == (lanes.region_name, "a", child.address)

    def signals() -> set[str]:
        records = read_all(lanes.cluster, topics.signals(lanes.model.name))
        return {signal.metric for signal in (Codec().decode(r.value) for r in records) if isinstance(signal, Signal)}

    child.wait("signals", lambda: signals() == {"requests", "update_latency_ms"})
    status, metrics = child.get("/health")
    assert (status, metrics["problems"], metrics["halted"]) == (200, [], {})
    assert child.end() == 0
    assert read_all(lanes.cluster, topics.members(lanes.region_name))[-1].value is None, "it said goodbye"


def train(lanes: Lanes, enough: threading.Event) -> None:
    """About 100,000 row deltas a second over both lanes, a barrier now and then, until it is enough."""
    rng = np.random.default_rng(1)
    keys = {shard: lanes.keys(shard, 3_000) for shard in (0, 1)}
    for number in itertools.count():
        outputs = []
        for shard in (0, 1):
            some = rng.choice(keys[shard], 1_000, replace=False)
            deltas = rng.integers(-1000, 1000, (1_000, 4), dtype=np.int32)
            outputs.append(lanes.rows_block(EXPRESS if rng.random() < 0.3 else BULK, shard, some, deltas))
        lanes.write(*outputs)
        if number % 40 == 39:
            lanes.mark(lanes.barrier())
        if enough.wait(0.01):
            return


def kill_in_mid_flush(child: StoreChild, folder: Path) -> None:
    """The file of a flush is written, and not yet part of the database."""
    child.wait("in mid-flush", lambda: any(folder.glob("*/incoming/**/*.sst")))
    child.kill()


def kill_in_mid_apply(child: StoreChild, folder: Path) -> None:
    """Rows are being added, and no flush is under way."""
    child.wait("between flushes", lambda: not any(folder.glob("*/incoming/**/*.sst")))
    time.sleep(0.2)
    child.kill()


def test_kill_9_in_mid_apply_mid_flush_and_mid_undo_changes_nothing(lanes: Lanes, start: Start, tmp_path: Path) -> None:
    enough = threading.Event()
    trainer = threading.Thread(target=train, args=(lanes, enough))
    trainer.start()
    try:
        for kill in (kill_in_mid_apply, kill_in_mid_flush, kill_in_mid_apply, kill_in_mid_flush, kill_in_mid_flush):
            child = start()
            child.wait_ready(lanes.model.name)
            kill(child, tmp_path / "store")
        wait_for(lambda: lanes.epoch >= 4, what="epochs enough for what is undone below")
    finally:
        enough.set()
        trainer.join()
    for void in (EpochRange(1, 1), EpochRange(3, lanes.epoch), EpochRange(0, 0)):
        child = start()
        child.wait_ready(lanes.model.name)
        lanes.control(lanes.barrier(void))
        time.sleep(0.05 * void.first)  # in mid-undo, or in the flush that follows it
        child.kill()
    lanes.mark(lanes.barrier())
    child = start()
    child.wait_ready(lanes.model.name)
    child.wait("applied", lambda: caught_up(child, lanes))
    assert served(child, lanes) == floats(lanes.truth())
    truth = lanes.truth(before_epoch=3)
    with child.client(lanes.model.name) as client:
        assert client.state().voids == lanes.voids
        assert client.state().complete == lanes.epoch
        summed = client.checksum("embedding", as_of=3)
    rows = np.array(list(truth.values()), np.int32)
    assert summed.checksum == checksum("embedding", np.array(list(truth), np.uint64), rows)


def test_a_rollback_while_it_was_dead_is_undone_before_it_serves(lanes: Lanes, start: Start) -> None:
    child = start()
    lanes.mark(lanes.barrier())
    lanes.send(EXPRESS, 0, value=9)
    child.wait_ready(lanes.model.name)
    child.wait("applied", lambda: caught_up(child, lanes))
    child.wait("flushed", lambda: flushed(lanes))
    child.kill()
    barrier = lanes.barrier(void=EpochRange(1, 1))
    lanes.control(barrier)
    child = start()
    child.wait_ready(lanes.model.name)
    with child.client(lanes.model.name) as client:
        assert client.state().voids == (EpochRange(1, 1),)
    assert served(child, lanes) == {}
    lanes.mark(barrier)
    lanes.send(BULK, 1)
    child.wait("applied", lambda: caught_up(child, lanes))
    assert served(child, lanes) == floats(lanes.truth())


def test_two_on_one_folder(lanes: Lanes, start: Start, tmp_path: Path) -> None:
    child = start()
    child.wait_ready(lanes.model.name)
    second = start(replica="b")
    assert second.process.wait(120) == 1
    first_line, hint, *rest = second.log.read_text().splitlines()
    assert first_line.startswith(f"ekko: data folder {tmp_path / 'store'} is held by replica a of region")
    assert f"(process {child.process.pid})" in first_line
    assert "--data" in hint
    assert not rest
    child.kill()
    third = start(replica="b")
    third.wait_ready(lanes.model.name)


def test_a_region_that_nobody_declared(broker: Broker, start: Start, tmp_path: Path) -> None:
    child = StoreChild(broker, "nowhere", tmp_path / "other")
    assert child.process.wait(120) == 1
    assert child.log.read_text().startswith("ekko: region 'nowhere'")
    assert start().process.poll() is None


def test_models_come_and_go_while_it_runs(
    broker: Broker, kafka: KafkaCluster, lanes: Lanes, start: Start, tmp_path: Path
) -> None:
    child = start()
    child.wait_ready(lanes.model.name)
    other = Lanes(broker, kafka, f"{lanes.model.name}-2", region=lanes.region_name)
    child.wait_ready(other.model.name)
    other.send(EXPRESS, 1, value=4)
    child.wait("applied", lambda: caught_up(child, other))
    assert served(child, other) == floats(other.truth())
    folders = list((tmp_path / "store").glob(f"{other.model.name}@*"))
    assert len(folders) == 1
    other.close()
    delete_model(kafka, other.model.name, KafkaCluster)
    child.wait("gone", lambda: child.get(f"/v1/models/{other.model.name}")[0] == 404)
    child.wait("cleaned up", lambda: not folders[0].exists())
    lanes.send(EXPRESS, 0)
    child.wait("applied", lambda: caught_up(child, lanes))
    assert served(child, lanes) == floats(lanes.truth())


def test_a_halted_shard_is_shown_and_the_others_are_served(lanes: Lanes, start: Start) -> None:
    child = start()
    child.wait_ready(lanes.model.name)
    lanes.send(EXPRESS, 0)
    lanes.block(EXPRESS, 0)  # numbered and never sent
    lanes.send(EXPRESS, 0)
    lanes.send(EXPRESS, 1)
    child.wait("halted", lambda: bool(child.get("/health")[1].get("halted")))
    status, health = child.get("/health")
    assert status == 200
    (name, reason), *others = health["halted"].items()
    assert name == f"{lanes.model.name}/0"
    assert "follows seq 2 of its lane, but 1 was applied last" in reason
    assert not others
    with child.client(lanes.model.name) as client:
        child.wait("the other goes on", lambda: client.state().shards[1].contiguous == 1)
        assert client.lookup("embedding", lanes.keys(0, 3)).values.max() == np.float32(2.0**-24)


def test_an_apply_loop_that_ends_ends_the_process(lanes: Lanes, start: Start, tmp_path: Path) -> None:
    child = start("--shards", "0")
    child.wait_ready(lanes.model.name)
    assert child.end() == 0
    child = start("--shards", "0-1")  # the folder holds other shards: refused, not mixed up
    assert child.process.wait(120) == 1
    assert "holds shards [0], not [0, 1]" in child.log.read_text()
    assert list((tmp_path / "store").iterdir())


def test_replicas_share_the_shards_and_the_client_finds_both(lanes: Lanes, start: Start) -> None:
    first, second = start("--shards", "0", replica="a", folder="a"), start("--shards", "1", replica="b", folder="b")
    first.wait_ready(lanes.model.name)
    second.wait_ready(lanes.model.name)
    lanes.send(EXPRESS, 0, value=2)
    lanes.send(EXPRESS, 1, value=3)
    keys = np.concatenate([lanes.keys(0, 3), lanes.keys(1, 3)])
    with first.client(lanes.model.name) as client:

        def found() -> bool:  # NotReady until the first has heard that the second is ready
            rows = client.lookup("embedding", keys)
            if not rows.found.all():
                return False
            assert (rows.values * 2.0**24)[:, 0].tolist() == [2, 2, 2, 3, 3, 3]
            assert sorted(rows.state.shards) == [0, 1]
            return True

        first.wait("applied", found)
