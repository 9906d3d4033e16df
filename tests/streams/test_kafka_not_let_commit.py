"""A writer that is refused in the middle of a transaction: what that says of the transaction's fate."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from ekko.ops.broker import Broker
from ekko.schemas.errors import CommitUncertain, ConnectionFailed, TransactionAborted
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec, read_all
from tests.streams.visible import await_visible
from tests.waiting import wait_for

PARTITION = Partition("t", 0)
PROPERTIES = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that lets everybody do everything that is not denied."""
    with Broker(tmp_path_factory.mktemp("strict"), properties=PROPERTIES) as broker:
        with closing(KafkaCluster(broker.bootstrap, timeout_s=60.0)) as cluster:
            cluster.create_topics([TopicSpec(PARTITION.topic, 1)])
        yield broker


@pytest.fixture
def cluster(strict: Broker) -> Iterator[KafkaCluster]:
    with closing(KafkaCluster(strict.bootstrap, timeout_s=60.0)) as cluster:
        yield cluster


def deny(broker: Broker, kind: ResourceType, name: str) -> None:
    literal, write = ResourcePatternType.LITERAL, AclOperation.WRITE
    rule = AclBinding(kind, name, literal, "User:ANONYMOUS", "*", write, AclPermissionType.DENY)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    (future,) = admin.create_acls([rule]).values()
    future.result(120)
    asked = AclBindingFilter(kind, name, literal, "User:ANONYMOUS", "*", write, AclPermissionType.DENY)
    # The controller has it now; the broker, which the writers ask, may get it a moment later.
    wait_for(lambda: admin.describe_acls(asked).result(120), what="the rule holds")


def test_a_commit_that_is_refused_may_have_been_carried_out(strict: Broker, cluster: KafkaCluster) -> None:
    """It is asked for again when its answer is lost, so a refusal says nothing of the time before."""
    writer = cluster.transactional_writer("x")
    writer.transact([Output(PARTITION, b"committed")])
    retry = writer._retry

    def denied_meanwhile(call: Callable[[float], None], deadline: float) -> None:
        deny(strict, ResourceType.TRANSACTIONAL_ID, "x")
        retry(call, deadline)

    writer._retry = denied_meanwhile  # type: ignore[method-assign]
    with pytest.raises(CommitUncertain, match=r"x has an unknown fate: .*(?i:authorization)"):
        writer.transact([Output(PARTITION, b"perhaps")])
    with pytest.raises(ConnectionFailed, match=r"(?i)authorization"):
        cluster.transactional_writer("x")


def test_what_is_refused_before_the_commit_is_not_written(strict: Broker, cluster: KafkaCluster) -> None:
    writer = cluster.transactional_writer("y")
    writer.transact([Output(PARTITION, b"y")])
    deny(strict, ResourceType.TRANSACTIONAL_ID, "y")
    with pytest.raises(ConnectionFailed, match=r"(?i)authorization"):
        writer.transact([Output(PARTITION, b"never")])
    await_visible(cluster, PARTITION.topic)
    assert b"never" not in [record.value for record in read_all(cluster, PARTITION.topic)]


def test_what_a_topic_refuses_is_aborted(strict: Broker, cluster: KafkaCluster) -> None:
    other = Partition("closed", 0)
    cluster.create_topics([TopicSpec(other.topic, 1)])
    deny(strict, ResourceType.TOPIC, other.topic)
    writer = cluster.transactional_writer("z")
    with pytest.raises(TransactionAborted):
        writer.transact([Output(PARTITION, b"never"), Output(other, b"never")])
    await_visible(cluster, PARTITION.topic)
    assert b"never" not in [record.value for record in read_all(cluster, PARTITION.topic)]
