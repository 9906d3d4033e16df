"""Rollbacks under fire, on real processes: whatever is killed meanwhile, every region ends with the same exact rows."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import EkkoError, RolledBack
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.background import in_background
from tests.ops.deployment import Deployment

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    table = TableDeclaration("embedding", 16)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table) as deployment:
        yield deployment


@contextmanager
def training(deployment: Deployment) -> Iterator[None]:
    """A trainer that publishes all the while, rollbacks or not."""

    def train(stop: threading.Event) -> None:
        rng = np.random.default_rng(1)
        name = deployment.model.name
        with Publisher(name, bootstrap=deployment.bootstrap, trainer="t", on_rollback=lambda _: None) as publisher:
            while not stop.wait(0.02):
                try:
                    publisher.publish("embedding", rng.integers(0, 20_000, 2_000), rng.normal(size=(2_000, 16)))
                except RolledBack:
                    continue

    with in_background(train):
        yield


def target(deployment: Deployment) -> str:
    """A state some epochs back."""
    found: list[int] = []

    def enough() -> bool:
        found[:] = [entry["state"] for entry in deployment.states() if entry["verdict"] in ("healthy", "candidate")]
        return len(found) >= 5

    deployment.wait("five states to go back to", enough)
    return str(found[-5])


def test_stores_killed_around_rollbacks(deployment: Deployment) -> None:
    """Killed from before the barrier to long after it: in mid-undo, in mid-flush; back up, or down all the while."""
    model = deployment.model.name
    for round_number in range(6):
        store = deployment.stores[deployment.regions[round_number % 2]]
        with training(deployment):
            time.sleep(4)
            to = target(deployment)
            killer = threading.Timer(0.3 + 0.25 * round_number, store.kill)
            killer.start()
            deployment.ekko("rollback", model, "--to", to, "--timeout", "5", check=False)
            killer.join()
            store.start()
            time.sleep(1)
        deployment.wait_exact(f"round {round_number}")
    assert len(deployment.sums().voids()) == 6


def test_managers_killed_around_rollbacks_and_rollbacks_at_once(deployment: Deployment) -> None:
    """Two operators roll back at the same time, the manager is killed and started: every shard has the same epochs."""
    model = deployment.model.name
    ended: list[tuple[int, str]] = []

    def operate(to: str) -> None:
        done = deployment.ekko("rollback", model, "--to", to, check=False)
        ended.append((done.returncode, done.stderr))

    with training(deployment):
        for round_number in range(4):
            time.sleep(3)
            states = target(deployment), target(deployment)
            operators = [threading.Thread(target=operate, args=(to,)) for to in states]
            for operator in operators:
                operator.start()
                time.sleep(0.2 * round_number)
            deployment.manager.kill()
            for operator in operators:
                operator.join()
            deployment.manager.start()
    deployment.wait_exact("all rolled back")
    refused = [why for code, why in ended if code]
    assert all("was itself taken back" in why for why in refused), refused  # the other operator was faster
    assert len(deployment.sums().voids()) == len(ended) - len(refused) >= 4


def test_a_region_that_was_down_all_the_while(deployment: Deployment) -> None:
    model, region = deployment.model.name, deployment.regions[0]
    with training(deployment):
        time.sleep(4)
        to = target(deployment)
        deployment.stores[region].kill()
        time.sleep(12)  # its last announcement is old: nobody waits for it
        said = deployment.ekko("rollback", model, "--to", to).stdout
        assert f"durable   {deployment.regions[1]}" in said
        time.sleep(2)
        deployment.stores[region].start()
        time.sleep(2)
    deployment.wait_exact("the region that was down")


def test_reads_are_never_torn_by_a_rollback(deployment: Deployment) -> None:
    """Every read of one key, before, during and after, is the row of some moment: never a mixture of columns."""
    model, region = deployment.model.name, deployment.regions[0]
    torn: list[object] = []
    reads = [0]
    stop = threading.Event()

    def read() -> None:
        with deployment.client(region) as client:
            while not stop.is_set():
                try:
                    rows = client.lookup("embedding", np.arange(64, dtype=np.uint64)).values
                except EkkoError:
                    continue
                torn.extend(row for row in rows if not (row == row[0]).all())
                reads[0] += 1

    with Publisher(model, bootstrap=deployment.bootstrap, trainer="t", on_rollback=lambda _: None) as publisher:
        reader = threading.Thread(target=read)
        reader.start()
        for number in range(900):
            try:
                deltas = np.repeat(
                    np.float32(2.0) ** -np.random.default_rng(number).integers(1, 9, (64, 1)), 16, axis=1
                )
                publisher.publish("embedding", np.arange(64), deltas)
            except RolledBack:
                continue
            time.sleep(0.01)
            if number % 300 == 299:
                deployment.ekko("rollback", model, "--to", target(deployment))
    stop.set()
    reader.join()
    deployment.wait_exact("after three rollbacks")
    assert torn == []
    assert reads[0] > 900, "as many as batches"
