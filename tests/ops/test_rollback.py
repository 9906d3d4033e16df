"""Rollback, reinstate and retract as an operator does them: every process real, every row compared with the raw log."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import RolledBack
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment

KEYS = 5_000


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(
        kafka, broker.bootstrap, topic_prefix, tmp_path, table=TableDeclaration("embedding", 8)
    ) as deployment:
        yield deployment


class Trainer:
    """Publishes random deltas."""

    def __init__(self, deployment: Deployment, name: str) -> None:
        self.rolled_back: list[int] = []
        self.rng = np.random.default_rng(7)
        self.publisher = Publisher(
            deployment.model.name, bootstrap=deployment.bootstrap, trainer=name, on_rollback=self.rolled_back.append
        )

    def train(self, batches: int = 5) -> None:
        for _ in range(batches):
            deltas = self.rng.normal(size=(2_000, 8)).astype(np.float32)
            self.publisher.publish("embedding", self.rng.integers(0, KEYS, 2_000), deltas)
        self.publisher.flush(10)


@pytest.mark.timeout(240)
def test_rolled_back_reinstated_retracted(deployment: Deployment) -> None:
    good, bad = Trainer(deployment, "good"), Trainer(deployment, "bad")
    good.train()
    deployment.wait_exact("first rows")
    state = deployment.wait_healthy()
    clean = deployment.expected()
    bad.train()
    good.train()
    deployment.wait_exact("poisoned rows")
    model = deployment.model.name
    assert deployment.expected() != clean

    plan = deployment.ekko("rollback", model, "--to", str(state), "--dry-run").stdout
    assert f"return to state {state}" in plan
    assert deployment.sums().voids() == ()

    said = deployment.ekko("rollback", model, "--to", str(state), "--reason", "test").stdout
    for region in deployment.regions:
        for stage in ("readable", "durable"):
            assert any(stage in line and f"{region}/" in line for line in said.splitlines()), said
    assert set(deployment.checksums().values()) == {clean}
    print(said)

    with pytest.raises(RolledBack):
        good.train(1)
    assert good.rolled_back == [1]
    good.train()
    deployment.wait_exact("rows of the new generation")

    deployment.ekko("trainer", "block", model, "bad", "--reason", "test")
    deployment.ekko("reinstate", model, "--reason", "false alarm")
    deployment.wait_exact("reinstated rows")
    opened = max(entry["state"] for entry in deployment.states())
    deployment.wait("the epoch is closed", lambda: deployment.states()[-1]["state"] > opened)
    deployment.ekko("retract", model, "bad", "--first", str(state))
    deployment.wait_exact("rows without the bad trainer")
    assert "nothing is left" in deployment.ekko("retract", model, "bad", "--first", str(state), "--dry-run").stdout

    entries = [Codec().decode(record.value) for record in read_all(deployment.kafka, topics.audit(model))]
    assert [entry.action for entry in entries] == ["rollback", "trainer block", "reinstate", "retract"]
    assert entries[0].details["to"] == str(state)
    assert entries[0].actor
