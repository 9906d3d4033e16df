"""A second cluster, and fan-out processes that can be killed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.streams.kafka import KafkaCluster


@pytest.fixture(scope="session")
def regional_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A region's own broker."""
    with Broker(tmp_path_factory.mktemp("regional-broker")) as running:
        yield running


@pytest.fixture
def regional(regional_broker: Broker) -> Iterator[KafkaCluster]:
    """A connection to the region's own cluster."""
    cluster = KafkaCluster(regional_broker.bootstrap, timeout_s=60.0)
    yield cluster
    cluster.close()


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_fanout(broker: Broker, tmp_path: Path) -> Iterator[Start]:
    """Starts `ekko fanout` for the model and region of this name; what still lives at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *flags: str, config: str = "") -> subprocess.Popen[bytes]:
        settings = tmp_path / "ekko.toml"
        settings.write_text(config)
        command = [str(Path(sys.executable).with_name("ekko")), "fanout", "--region", name, "--model", name]
        command += ["--bootstrap", broker.bootstrap, "--config", str(settings), *flags]
        with (tmp_path / f"fanout-{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(120)
