"""A trainer killed with -9 beside one that goes on and one that ends properly: only the first is called silent."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.kafka import KafkaCluster
from tests.ops.deployment import Deployment
from tests.ports import free_port

SILENT = r"trainer vanishes has published nothing for (\d+) s"
TRAINER = """
import sys, time
import numpy as np
from ekko.streams.publisher import Publisher

model, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
end = time.monotonic() + seconds
with Publisher(model, trainer=name, timeout_s=60) as publisher:
    while time.monotonic() < end:
        publisher.publish("embedding", np.arange(8), np.full((8, 4), 0.01))
        time.sleep(0.2)
"""


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    table = TableDeclaration("embedding", 4)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as deployment:
        yield deployment


@contextmanager
def trainer(deployment: Deployment, name: str, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-c", TRAINER, deployment.model.name, name, str(seconds)]
    process = subprocess.Popen(arguments, env={"EKKO_BOOTSTRAP": deployment.bootstrap})
    try:
        yield process
    finally:
        process.kill()
        process.wait(120)


def reasons(deployment: Deployment) -> str:
    """What `ekko status` says about silence among the model's states."""
    said = deployment.ekko("status", check=False).stdout
    return " ".join(line for line in said.splitlines() if "published nothing" in line)


def silence_in(deployment: Deployment) -> str:
    """The same, without a process for every look."""
    return " ".join(finding.text for finding in deployment.findings() if "published nothing" in finding.text)


def named(deployment: Deployment, seconds: int) -> str:
    """What the command says once it calls `vanishes` silent for so many seconds."""
    said: list[str] = []

    def longer() -> bool:
        looked = silence_in(deployment)
        if not any(int(told) >= seconds for told in re.findall(SILENT, looked)):
            return False
        said.append(reasons(deployment))
        return any(int(told) >= seconds for told in re.findall(SILENT, said[-1]))

    deployment.wait(f"silent for {seconds} s", longer, 300)
    return said[-1]


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        return str(reply.read().decode())


def test_the_one_that_was_killed_is_named(deployment: Deployment) -> None:
    port = free_port()
    deployment.run("monitor", "monitor", "--port", str(port))
    with (
        trainer(deployment, "vanishes", 600) as vanishes,
        trainer(deployment, "goes-on", 600) as goes_on,
        trainer(deployment, "ends", 20) as ends,
    ):
        assert ends.wait(120) == 0
        assert reasons(deployment) == ""
        vanishes.kill()
        named(deployment, 30)
        labels = f'{{model="{deployment.model.name}",trainer="vanishes"}}'
        assert f"ekko_monitor_silent_trainer_seconds{labels}" in metrics(port)
        said = named(deployment, 45)  # the one that ended has been quiet for longer, and nobody minds
        assert "trainer ends " not in said
        assert "trainer goes-on " not in said
        assert goes_on.poll() is None
        deployment.ekko("trainer", "block", deployment.model.name, "vanishes")
        deployment.wait("blocked, it is no trouble any more", lambda: silence_in(deployment) == "", 300)
        assert reasons(deployment) == ""
