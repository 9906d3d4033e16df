"""One suite for both logs: what the real cluster does, its in-memory twin does too, else simulations mean little."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster, Partition, TopicSpec
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Faults
from ekko.streams.memory.log import MemoryCluster
from tests.streams.log.steps import Trim


class LateMarkers(Faults):
    """Commits become visible some time after their answer, as on a busy broker."""

    def marker_delay_s(self) -> float:
        return 0.05


@pytest.fixture(params=["memory", "late", "kafka"])
def log(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Trim]]:
    """A cluster, and how to let retention pass by on it."""
    if request.param != "kafka":
        faults = LateMarkers() if request.param == "late" else None
        memory = MemoryCluster(MemoryBroker(time.monotonic), faults)
        yield memory, memory.broker.trim
        return
    bootstrap = request.getfixturevalue("broker").bootstrap
    request.getfixturevalue("patient_transactions")
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def trim(partition: Partition, offset: int) -> None:
        (future,) = admin.delete_records([TopicPartition(partition.topic, partition.number, offset)]).values()
        future.result(120)

    cluster = KafkaCluster(bootstrap, timeout_s=60.0)
    yield cluster, trim
    cluster.close()


@pytest.fixture
def cluster(log: tuple[Cluster, Trim]) -> Cluster:
    return log[0]


@pytest.fixture
def trim(log: tuple[Cluster, Trim]) -> Trim:
    return log[1]


@pytest.fixture
def topic(cluster: Cluster, topic_prefix: str) -> Iterator[str]:
    """A topic of two partitions."""
    cluster.create_topics([TopicSpec(topic_prefix, 2)])
    yield topic_prefix
    cluster.delete_topics([topic_prefix])
