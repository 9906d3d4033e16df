"""`ekko expire` on a deployment of real processes: idle rows are gone everywhere, whatever is killed in the middle."""

import re
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import Fenced
from ekko.schemas.hashing import UInt64s
from ekko.storage.disk.rocks import RocksDurable
from ekko.storage.engine.cells import row_width, rows_prefix
from ekko.streams.kafka import KafkaCluster
from ekko.streams.manager.barriers import withdrawing
from ekko.streams.manager.tenure import Tenure
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.ops.interrupted import CHUNK, await_killed, interrupted
from tests.streams.visible import await_visible

TABLE = TableDeclaration("embedding", 64)
IDLE, BUSY = 100_000, 1_000


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE) as running:
        yield running


def publish(deployment: Deployment, trainer: str, keys: UInt64s, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 0.1, (len(keys), TABLE.dim)).astype(np.float32)
    with Publisher(deployment.model.name, cluster=deployment.kafka, trainer=trainer) as publisher:
        for start in range(0, len(keys), 20_000):
            publisher.publish(TABLE.name, keys[start : start + 20_000], values[start : start + 20_000])


def give_up_states(deployment: Deployment, before: int) -> None:
    """What the manager does by itself two days later; it may be writing a barrier just now."""

    def done() -> bool:
        with closing(Tenure(deployment.kafka, Codec(), deployment.model, time.time())) as tenure:
            try:
                tenure.write_barrier(tenure.barrier.catalogue_end, time.time(), withdrawing(range(before)))
            except Fenced:
                return False
            return True

    deployment.wait("states are withdrawn", done)
    await_visible(deployment.kafka, topics.control(deployment.model.name))


def expire(deployment: Deployment, *flags: str) -> list[str]:
    name, region = deployment.model.name, deployment.regions[0]
    return ["expire", name, "--table", TABLE.name, "--older-than", "0s", "--region", region, *flags]


def kill_in_the_middle(deployment: Deployment) -> None:
    """Kill -9 once some chunks are committed."""
    await_killed(interrupted(signal.SIGKILL, CHUNK, 2, *expire(deployment), "--bootstrap", deployment.bootstrap))


def test_idle_rows_expire_whatever_is_killed_and_retractions_know_it(deployment: Deployment) -> None:
    idle = np.arange(IDLE, dtype=np.uint64) * np.uint64(97)
    busy = idle[:BUSY]
    publish(deployment, "bad", idle[: IDLE // 2], 1)
    publish(deployment, "good", idle, 2)
    name, state = deployment.model.name, deployment.wait_healthy()
    early = deployment.ekko(*expire(deployment)).stdout
    assert "a rollback may still name state 0" in early
    give_up_states(deployment, state)
    publish(deployment, "good", busy, 3)
    planned = deployment.ekko(*expire(deployment, "--dry-run")).stdout
    assert f"nothing has arrived since model state {state}" in planned

    kill_in_the_middle(deployment)
    done = deployment.ekko(*expire(deployment, "--reason", "tidy")).stdout
    rows = re.search(r"(\d+) rows have expired", done)
    assert rows is not None, done
    assert 0 < int(rows[1]) < IDLE - BUSY, "it went on where it was"
    assert "nothing is left to expire" in deployment.ekko(*expire(deployment)).stdout

    deployment.wait_exact("the rows of the source log")
    keys, _ = deployment.sums().rows(TABLE.name)
    assert np.array_equal(np.sort(keys), busy), "by an independent reading of the log"
    for region in deployment.regions:
        with deployment.client(region) as client:
            found = client.lookup(TABLE.name, idle)
            assert np.array_equal(found.found, np.isin(idle, busy))
            assert not found.values[~found.found].any()

    retracted = deployment.ekko("retract", name, "bad", "--first", "0").stdout
    assert f"{IDLE // 2 + IDLE // 2 - BUSY} rows" in retracted, "its rows, and a correction of each that has expired"
    deployment.wait_exact("what is left without the bad trainer")
    keys, _ = deployment.sums().rows(TABLE.name)
    assert np.array_equal(np.sort(keys), busy), "a retraction alone would have left its negative in every row"
    assert [entry.action for entry in deployment.audit()] == ["expire", "retract"]

    give_up_states(deployment, deployment.wait_healthy())  # so that no rollback and no peer needs them
    deployment.wait("cells of expired rows leave the disk", lambda: cells_on_disk(deployment) == BUSY, 300)


def cells_on_disk(deployment: Deployment) -> int:
    """Rows, and zero rows, in one store's folder."""
    region = deployment.regions[0]
    time.sleep(3)  # a flush or two
    deployment.stores[region].end()
    (folder,) = (path.parent for path in (deployment.folder / region).rglob("rocksdb"))
    with closing(RocksDurable(folder)) as disk:
        count = sum(len(keys) for keys, _ in disk.scan(rows_prefix(0), row_width(TABLE.dim)))
    deployment.stores[region].start()
    deployment.wait("it is back", lambda: deployment.checksums() is not None)
    return count
