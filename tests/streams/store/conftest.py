"""A model whose lanes are written by hand, its replica step by step, and `ekko store` as a process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.streams.kafka import KafkaCluster
from tests.streams.lanes_by_hand import Lanes, Replica
from tests.streams.store_child import StoreChild

Open = Callable[..., Replica]
Start = Callable[..., StoreChild]


@pytest.fixture
def lanes(broker: Broker, kafka: KafkaCluster, topic_prefix: str) -> Iterator[Lanes]:
    lanes = Lanes(broker, kafka, topic_prefix)
    yield lanes
    lanes.close()


@pytest.fixture
def open_replica(lanes: Lanes, tmp_path: Path) -> Iterator[Open]:
    """Opens the replica; a second call, after `kill` or `stop`, opens it again on the same folder."""
    replicas: list[Replica] = []

    def open_again(**options: object) -> Replica:
        replicas.append(Replica(lanes, tmp_path / "store", **options))  # type: ignore[arg-type]
        return replicas[-1]

    yield open_again
    replicas[-1].kill()


@pytest.fixture
def start(broker: Broker, lanes: Lanes, tmp_path: Path) -> Iterator[Start]:
    """Starts `ekko store`; what still runs in the end is killed."""
    children: list[StoreChild] = []

    def start_store(*flags: str, folder: str = "store", replica: str = "a") -> StoreChild:
        children.append(StoreChild(broker, lanes.region_name, tmp_path / folder, *flags, replica=replica))
        return children[-1]

    yield start_store
    for child in children:
        if child.process.poll() is None:
            child.kill()
