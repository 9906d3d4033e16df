"""A rollback while something else is under way, each on real processes, and the same exact rows in every region.

What must come out is computed from the raw source log by rules that know nothing of journals: the checksum of a store
that never saw what is void.
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import RolledBack
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

DIM = 16
KEYS = 150_000
TABLE = TableDeclaration("embedding", DIM)
_UNDOES = re.compile(r"undoes epochs (\d+) to (\d+)")
_UNDID = re.compile(r"undid epochs (\d+) to (\d+)")


class Scene:
    """A deployment, and a trainer that changes every row."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.model = deployment, deployment.model.name
        self.rng = np.random.default_rng(3)
        self.publisher = Publisher(
            self.model, bootstrap=deployment.bootstrap, trainer="t", on_rollback=lambda _: None, queue_bytes=1 << 28
        )

    def train(self, rows: int = KEYS) -> None:
        """One delta for each of `rows` keys."""
        keys = self.rng.choice(KEYS, rows, replace=False).astype(np.uint64)
        deltas = self.rng.normal(scale=0.01, size=(rows, DIM)).astype(np.float32)
        for attempt in range(2):
            try:
                self.publisher.publish("embedding", keys, deltas, timeout_s=60)
                return self.publisher.flush(60)
            except RolledBack:
                assert attempt == 0
        return None

    def log_of(self, region: str) -> str:
        return self.deployment.stores[region].log.read_text()

    def roll_back(self, to: int, timeout_s: float = 60) -> str:
        said = self.deployment.ekko("rollback", self.model, "--to", str(to), "--timeout", str(timeout_s), check=False)
        return said.stdout + said.stderr


@pytest.fixture
def make(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    opened: list[Scene] = []

    def open_scene(**options: object) -> Scene:
        deployment = Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TABLE, **options)
        opened.append(Scene(deployment.__enter__()))
        return opened[-1]

    yield open_scene
    for scene in opened:
        scene.publisher.close()
        scene.deployment.__exit__()


def test_during_a_flush(make: Callable[..., Scene]) -> None:
    """The void is learnt while the flush that holds voided rows is being written."""
    scene = make()
    deployment = scene.deployment
    scene.train()
    state = deployment.wait_healthy()
    clean = deployment.expected()
    scene.train()
    flushing = [deployment.folder / region for region in deployment.regions]
    deployment.wait(
        "a flush under way", lambda: any(any(folder.glob("*/incoming/**/*.sst")) for folder in flushing), 30
    )
    scene.roll_back(state)
    deployment.wait_exact("after a rollback during a flush")
    assert deployment.expected() == clean
    for store in deployment.stores.values():  # what is on disk says the same
        store.kill()
        store.start()
    deployment.wait_exact("after a restart")


def test_killed_in_mid_undo(make: Callable[..., Scene]) -> None:
    """Killed after it has said that it undoes and before it has said that it did."""
    scene = make()
    deployment, caught = scene.deployment, 0
    for round_number in range(6):
        region = deployment.regions[round_number % 2]
        scene.train()
        state = deployment.wait_healthy()
        scene.train()
        deployment.wait_exact("applied")
        before = len(_UNDOES.findall(scene.log_of(region)))
        operator = threading.Thread(target=scene.roll_back, args=(state, 20))
        operator.start()
        deadline = time.monotonic() + 30
        while len(_UNDOES.findall(scene.log_of(region))) == before:
            assert time.monotonic() < deadline, "no void was learnt"
            time.sleep(0.001)
        time.sleep(0.005 * round_number)
        deployment.stores[region].kill()
        caught += len(_UNDOES.findall(scene.log_of(region))) > len(_UNDID.findall(scene.log_of(region)))
        deployment.stores[region].start()
        operator.join()
        deployment.wait_exact(f"round {round_number}")
    print(f"{caught} of 6 kills in mid-undo")
    assert caught >= 1


def test_during_another_rollback(make: Callable[..., Scene]) -> None:
    """Two operators want different states within the same moments: one after the other, or one is told why not."""
    scene = make()
    deployment = scene.deployment
    states = []
    for _ in range(3):
        scene.train(30_000)
        states.append(deployment.wait_healthy())
    said: list[str] = []
    operators = [threading.Thread(target=lambda to=to: said.append(scene.roll_back(to))) for to in states[:2]]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()
    deployment.wait_exact("after both")
    voids = deployment.sums().voids()
    refused = [text for text in said if "was itself taken back" in text]
    assert len(voids) + len(refused) == 2, said
    assert states[0] in {void.first for void in voids}
    scene.train(30_000)
    deployment.wait_exact("and it goes on")


def test_with_bulk_pending_from_before_and_after_the_state(
    make: Callable[..., Scene], tmp_path: Path, topic_prefix: str
) -> None:
    """A link so thin that rows of several epochs wait in the fan-outs when the rollback comes."""
    config = tmp_path / "thin.toml"
    names = [f"{topic_prefix[:50]}-r{number}" for number in range(2)]
    config.write_text("".join(f"[region.{name}]\nbandwidth_bytes_per_s = 400_000\n" for name in names))
    scene = make(fanout_flags=("--config", str(config)))
    deployment = scene.deployment
    deployment.wait_healthy()
    scene.train(60_000)
    opened = deployment.states()[-1]["state"]
    deployment.wait("two states later", lambda: deployment.states()[-1]["state"] >= opened + 2)
    to = deployment.states()[-1]["state"]
    scene.train(60_000)
    deployment.wait("a state later", lambda: deployment.states()[-1]["state"] > to)
    settled = [entry for entry in deployment.states() if entry["state"] >= opened + 2]
    assert all(complete == "not yet" for entry in settled for complete in entry["regions"].values()), "nothing waits"
    scene.roll_back(to, 2)
    scene.train(30_000)  # learnt since, and behind what still waits
    expected = deployment.expected()
    deployment.wait("both regions exact", lambda: set(deployment.checksums().values()) == {expected}, 180)
    assert len(deployment.sums().voids()) == 1


def test_with_a_region_down(make: Callable[..., Scene]) -> None:
    """One region is dead all the while: the other acknowledges, and it catches up exactly."""
    scene = make()
    deployment, (down, up) = scene.deployment, scene.deployment.regions
    scene.train()
    state = deployment.wait_healthy()
    clean = deployment.expected()
    scene.train()
    deployment.wait_exact("poison everywhere")
    deployment.stores[down].kill()
    deployment.fanouts[down].kill()
    time.sleep(11)  # its last announcement is old: nobody waits for it
    said = scene.roll_back(state)
    assert re.search(rf"durable\s+{up}/", said), said
    assert deployment.checksum_of(up) == clean
    deployment.fanouts[down].start()
    deployment.stores[down].start()
    deployment.wait_exact("the region that was down")
    assert deployment.expected() == clean
