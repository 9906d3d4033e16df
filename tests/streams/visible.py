"""Waiting until what was committed can be read: a commit is answered before its markers stand in the partitions."""

from collections.abc import Iterable

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from ekko.streams.kafka import KafkaCluster
from ekko.streams.kafka.said import log
from ekko.streams.log import Cluster, Partition
from tests.waiting import wait_for


def await_visible(cluster: Cluster, topic: str) -> None:
    """Return once all that stands in the topic now can be read; no transaction in it may stay open for long."""
    if not isinstance(cluster, KafkaCluster):
        return  # the twin writes markers with the commit
    partitions = [Partition(topic, number) for number in range(cluster.topics()[topic])]
    written: dict[Partition, int] = {}
    wait_for(lambda: written.update(_written(cluster, partitions)) or written, what=f"where {topic} ends is told")
    wait_for(
        lambda: all(bounds.end >= written[at] for at, bounds in cluster.bounds(partitions).items()),
        what=f"no transaction in {topic} is open",
    )


def _written(cluster: KafkaCluster, partitions: Iterable[Partition]) -> dict[Partition, int]:
    """Ends with what cannot be read yet; empty if somebody does not know his own."""
    admin = AdminClient({"bootstrap.servers": cluster._bootstrap, **(cluster._given or {})}, logger=log)
    asked = {TopicPartition(*partition): OffsetSpec.latest() for partition in partitions}
    told = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=10.0)
    if any(future.exception(20.0) is not None for future in told.values()):
        return {}  # a leader is being elected
    return {Partition(at.topic, at.partition): future.result(20.0).offset for at, future in told.items()}
