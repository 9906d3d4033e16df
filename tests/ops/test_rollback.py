"""Rollback, reinstate and retract as an operator does them: every process real, every row compared with the raw log."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import RolledBack
from ekko.schemas.signals import AuditEntry
from ekko.streams.kafka import KafkaCluster
from ekko.streams.manager.history import read_control
from ekko.streams.manager.intervention import actor
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.streams.visible import await_visible
from tests.waiting import wait_for

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
        self.publisher.flush(120)

    def train_until_rolled_back(self) -> None:
        """Until the publisher has heard of it; what is published before is rejected everywhere."""

        def told() -> bool:
            try:
                self.train(1)
            except RolledBack:
                return True
            return False

        wait_for(told)


def denied(deployment: Deployment) -> tuple[str, ...]:
    """Trainers whose blocks are rejected, by the last barrier."""
    await_visible(deployment.kafka, topics.control(deployment.model.name))
    barrier = read_control(deployment.kafka, Codec(), deployment.model)
    assert barrier is not None
    return barrier.denied


def check_audit(deployment: Deployment, state: int) -> None:
    """Who did what, when and why, and how many rows each replica took back; in the topic and by `ekko audit`."""
    model = deployment.model.name

    def undone() -> list[AuditEntry]:
        return [entry for entry in deployment.audit() if entry.action == "undone"]

    deployment.wait(
        "what every region has undone is told",
        lambda: {entry.actor.partition("/")[0] for entry in undone()} == set(deployment.regions),
    )
    entries = deployment.audit()
    assert all(int(entry.details["rows"]) > 1_000 and int(entry.details["first"]) == state for entry in undone())
    shown = deployment.ekko("audit", model, "--last", "100").stdout.splitlines()
    assert len(shown) >= len(entries)
    for region in deployment.regions:
        assert any(re.search(rf"  undone +{region}/0  .*rows=\d{{4}}", line) for line in shown), shown
    assert any(re.search(rf"  rollback +{re.escape(actor())}  .*to={state}  test$", line) for line in shown), shown
    entries = [entry for entry in entries if entry.action != "undone"]
    assert [entry.action for entry in entries] == ["rollback", "trainer block", "reinstate", "retract", "trainer allow"]
    assert entries[0].details["to"] == str(state)
    assert entries[0].actor


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

    good.train_until_rolled_back()
    assert good.rolled_back == [1]
    good.train()
    deployment.wait_exact("rows of the new generation")

    deployment.ekko("trainer", "block", model, "bad", "--reason", "test")
    assert denied(deployment) == ("bad",)
    deployment.ekko("reinstate", model, "--reason", "false alarm")
    deployment.wait_exact("reinstated rows")
    opened = max(entry["state"] for entry in deployment.states())
    deployment.wait("the epoch is closed", lambda: deployment.states()[-1]["state"] > opened)
    deployment.ekko("retract", model, "bad", "--first", str(state))
    deployment.wait_exact("rows without the bad trainer")
    assert "nothing is left" in deployment.ekko("retract", model, "bad", "--first", str(state), "--dry-run").stdout
    assert denied(deployment) == ("bad",), "barriers carry it on"
    deployment.ekko("trainer", "allow", model, "bad")
    assert denied(deployment) == ()

    check_audit(deployment, state)


def publish_until_told(publisher: Publisher, keys: np.ndarray, ended: list[BaseException]) -> None:
    """Until it is told of the rollback: what goes before is of the old generation, and rejected everywhere."""
    while not ended:
        try:
            publisher.publish("embedding", keys, np.ones((len(keys), 8), np.float32))
            publisher.flush(120)
        except RolledBack as error:
            ended.append(error)


def test_a_trainer_pulls_rows_of_the_new_generation_before_anything_passes_again(deployment: Deployment) -> None:
    """`publish` raises until the callback has returned, in every thread; what the callback pulls is clean already."""
    model, keys = deployment.model.name, np.arange(KEYS, dtype=np.uint64)
    trainer = Trainer(deployment, "t")
    trainer.train()
    deployment.wait_exact("good rows")
    state = deployment.wait_healthy()
    client = deployment.client(deployment.regions[0])
    clean = client.lookup("embedding", keys).values
    trainer.train()
    deployment.wait_exact("bad rows")
    pulled: list[np.ndarray] = []
    inside, leave = threading.Event(), threading.Event()

    def pull(generation: int) -> None:
        pulled.append(client.pull("embedding", keys, generation=generation, timeout_s=60.0).values)
        inside.set()
        assert leave.wait(120)

    ended: list[BaseException] = []

    with Publisher(model, bootstrap=deployment.bootstrap, trainer="u", on_rollback=pull, timeout_s=30) as publisher:
        deployment.ekko("rollback", model, "--to", str(state))
        first = threading.Thread(target=publish_until_told, args=(publisher, keys[:5], ended))
        first.start()
        assert inside.wait(120)
        before = publisher.acknowledged.rows
        for _ in range(3):  # the callback has not returned: nothing passes, whoever asks
            with pytest.raises(RolledBack):
                publisher.publish("embedding", keys[:5], np.ones((5, 8), np.float32))
        assert publisher.acknowledged.rows == before
        leave.set()
        first.join(120)
        assert len(ended) == 1
        assert np.array_equal(pulled[0], clean)
        publisher.publish("embedding", keys[:5], np.ones((5, 8), np.float32))
        publisher.flush(120)
        assert publisher.generation == 1
    deployment.wait_exact("only what was learnt since counts")
    after = client.pull("embedding", keys, generation=1).values
    assert np.allclose(after[:5], clean[:5] + 1, rtol=0, atol=1e-5)  # float32 rounds what the row holds exactly
    assert np.array_equal(after[5:], clean[5:])
    client.close()


def test_a_dead_manager_only_means_no_new_states(deployment: Deployment) -> None:
    """Rows flow, states are served, an operator can roll back; the next manager goes on."""
    model, trainer = deployment.model.name, Trainer(deployment, "t")
    trainer.train()
    deployment.wait_exact("good rows")
    state = deployment.wait_healthy()
    clean = deployment.expected()
    deployment.manager.kill()
    await_visible(deployment.kafka, topics.control(model))
    last = deployment.states()[-1]["state"]
    trainer.train()
    deployment.wait_exact("rows that came without a manager")
    assert deployment.expected() != clean
    assert deployment.states()[-1]["state"] <= last + 1, "the one whose barrier was written when it died, at most"
    deployment.ekko("rollback", model, "--to", str(state))
    assert set(deployment.checksums().values()) == {clean}
    trainer.train_until_rolled_back()
    trainer.train()
    deployment.wait_exact("rows of the new generation")
    deployment.manager.start()
    assert deployment.wait_healthy() > state
    deployment.wait_exact("and with a manager again")


def test_case_53_back_to_fifty_and_forth_to_a_hundred(deployment: Deployment) -> None:
    """A rollback wins over newer data for good; what it took comes back exactly when it is reinstated."""
    model, trainer = deployment.model.name, Trainer(deployment, "t")
    for _ in range(50):
        trainer.train(1)
    deployment.wait_exact("fifty")
    state = deployment.wait_healthy()
    fifty = deployment.expected()
    for _ in range(50):
        trainer.train(1)
    deployment.wait_exact("a hundred")
    hundred = deployment.expected()
    deployment.ekko("rollback", model, "--to", str(state))
    assert set(deployment.checksums().values()) == {fifty}
    deployment.wait_healthy()  # barriers go by, late blocks have had their time
    assert set(deployment.checksums().values()) == {fifty}
    deployment.ekko("reinstate", model)
    deployment.wait("a hundred again", lambda: set(deployment.checksums().values()) == {hundred})
