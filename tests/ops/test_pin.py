"""A pinned state, set, served and cleared by an operator: every process real, both regions alike."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import NotReady
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.waiting import PATIENCE_S

KEYS = np.arange(2_000, dtype=np.uint64)


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    table = TableDeclaration("embedding", 8)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table) as deployment:
        yield deployment


def publish(deployment: Deployment, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with Publisher(deployment.model.name, bootstrap=deployment.bootstrap, trainer="t", generation=0) as publisher:
        publisher.publish("embedding", KEYS, rng.normal(size=(len(KEYS), 8)).astype(np.float32))
        publisher.flush(120)


def read(deployment: Deployment, region: str) -> np.ndarray:
    with deployment.client(region) as client:
        return client.lookup("embedding", KEYS).values


def pull(deployment: Deployment, region: str, generation: int = 0, timeout_s: float = PATIENCE_S) -> np.ndarray:
    with deployment.client(region) as client:
        return client.pull("embedding", KEYS, generation=generation, timeout_s=timeout_s).values


def everybody_reads(deployment: Deployment, rows: np.ndarray) -> None:
    deployment.wait(
        "the same rows in every region",
        lambda: all(np.array_equal(read(deployment, region), rows) for region in deployment.regions),
    )


def test_a_pinned_state_is_served_in_place_of_live_rows_until_it_is_cleared(deployment: Deployment) -> None:
    model, region = deployment.model.name, deployment.regions[0]
    publish(deployment, 1)
    deployment.wait_exact("good rows")
    state = deployment.wait_healthy()
    good = read(deployment, region)
    publish(deployment, 2)
    deployment.wait_exact("bad rows")
    bad = read(deployment, region)

    assert "get live rows" in deployment.ekko("pin", "set", model, str(state)).stdout
    everybody_reads(deployment, bad)
    deployment.ekko("pin", "serve", model, str(state), "--reason", "it goes bad again and again")
    everybody_reads(deployment, good)
    assert all(np.array_equal(pull(deployment, name), bad) for name in deployment.regions)  # trainers go on
    assert f"state {state}" in " ".join(
        line for line in deployment.ekko("status", check=False).stdout.splitlines() if "in place of live rows" in line
    )
    assert "(pinned, served)" in deployment.ekko("states", model, "--last", "1").stdout

    for store in deployment.stores.values():  # it is in the log, so a new start knows it
        store.kill()
        store.start()
    everybody_reads(deployment, good)
    publish(deployment, 3)
    deployment.wait_exact("applied all the while")
    everybody_reads(deployment, good)

    deployment.ekko("pin", "clear", model)
    newest = pull(deployment, region)
    assert not np.array_equal(newest, bad)
    everybody_reads(deployment, newest)
    assert [entry.action for entry in deployment.audit() if entry.action != "undone"] == [
        "pin",
        "serve pinned",
        "unpin",
    ]

    with pytest.raises(NotReady, match="0 of 1 rollbacks"):
        pull(deployment, region, generation=1, timeout_s=1.0)
    refused = deployment.ekko("pin", "set", model, "1000000", check=False)
    assert refused.returncode == 1
    assert "does not exist" in refused.stderr
