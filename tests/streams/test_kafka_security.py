"""CASES 55 and 57: what keeps a client from its cluster is raised within the time-out of the call, with the reason.

A broker of its own with TLS and SASL on its client listener.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from ekko.ops.broker import Broker
from ekko.schemas.errors import ConnectionFailed
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec, read_all
from tests.ports import free_port
from tests.streams.visible import await_visible

TIMEOUT_S = 30.0
SHORT_S = 2.0
"""For what can only end at its time-out."""
SLACK_S = 15.0
"""A call may take its time-out and what a busy machine adds: what hangs, hangs for longer."""

RIGHT, WRONG = "right", "wrong"
PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def pem(authority: trustme.CA, path: Path) -> Path:
    """A server's key (PKCS#8, as Kafka wants it), certificate and authority in one file."""
    issued = authority.issue_cert("127.0.0.1")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    path.write_bytes(pkcs8 + chain + authority.cert_pem.bytes())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def secured(folder: Path) -> Iterator[Broker]:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
    properties = {
        "listeners": "CLIENTS://{host}:{port},INTERNAL://127.0.0.1:0,CONTROLLER://127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "CLIENTS:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.clients.plain.sasl.jaas.config": f'{PLAIN_LOGIN} user_carol="{RIGHT}";',
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pem(authority, folder / "broker.pem")),
    }
    with Broker(folder / "broker", properties=properties) as broker:
        yield broker


def settings(folder: Path, *, password: str = RIGHT, ca: str = "ca.pem") -> dict[str, str]:
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "carol",
        "sasl.password": password,
        "ssl.ca.location": str(folder / ca),
    }


def write_until_told(cluster: KafkaCluster, partition: Partition) -> None:
    """Go on writing, as a publisher does, until it is told why nothing arrives."""
    writer = cluster.writer()
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while time.monotonic() < deadline:
            writer.send(Output(partition, b"x"))
            writer.poll(0.05)
    finally:
        writer.purge()
        writer.close()


def read_one(cluster: KafkaCluster, partition: Partition) -> None:
    reader = cluster.reader()
    try:
        reader.assign({partition: 0})
    finally:
        reader.close()


def transact_one(cluster: KafkaCluster, partition: Partition) -> None:
    cluster.transactional_writer("security-test").transact([Output(partition, b"x")], TIMEOUT_S)


CALLS: dict[str, Callable[[KafkaCluster, Partition], object]] = {
    "topics": lambda cluster, _: cluster.topics(),
    "bounds": lambda cluster, partition: cluster.bounds([partition]),
    "create": lambda cluster, partition: cluster.create_topics([TopicSpec(partition.topic, 1)]),
    "write": write_until_told,
    "read": read_one,
    "transact": transact_one,
}


def refused(cluster: KafkaCluster, call: str, reason: str, timeout_s: float = SHORT_S) -> None:
    """The call raises ConnectionFailed with the reason within the time-out."""
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=reason) as caught:
        CALLS[call](cluster, Partition("t", 0))
    assert time.monotonic() - started < timeout_s + SLACK_S
    assert "security settings" in caught.value.hint
    cluster.close()


def test_the_right_settings_work(secured: Broker, folder: Path) -> None:
    cluster = KafkaCluster(secured.bootstrap, settings(folder), timeout_s=TIMEOUT_S)
    cluster.create_topics([TopicSpec("works", 1)])
    cluster.transactional_writer("works").transact([Output(Partition("works", 0), b"x")])
    await_visible(cluster, "works")
    assert [record.value for record in read_all(cluster, "works")] == [b"x"]
    cluster.close()


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_password_is_told(secured: Broker, folder: Path, call: str) -> None:
    cluster = KafkaCluster(secured.bootstrap, settings(folder, password=WRONG), timeout_s=TIMEOUT_S)
    refused(cluster, call, "(?i)authentication failed", TIMEOUT_S)


@pytest.mark.parametrize("call", CALLS)
def test_an_unknown_authority_is_told(secured: Broker, folder: Path, call: str) -> None:
    cluster = KafkaCluster(secured.bootstrap, settings(folder, ca="stranger.pem"), timeout_s=TIMEOUT_S)
    refused(cluster, call, "certificate verify failed|broker certificate could not be verified", TIMEOUT_S)


def test_no_tls_where_tls_is_asked_is_told(secured: Broker) -> None:
    refused(KafkaCluster(secured.bootstrap, timeout_s=SHORT_S), "topics", secured.bootstrap)


@pytest.mark.parametrize("call", ["topics", "bounds"])
def test_nobody_there_is_told(call: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused(KafkaCluster(address, timeout_s=SHORT_S), call, f"{address}.*refused")


def test_an_unresolvable_bootstrap_is_told() -> None:
    refused(
        KafkaCluster("no-such-host.invalid:9092", timeout_s=SHORT_S), "topics", r"(?i)resolve.*no-such-host\.invalid"
    )


def test_an_unreachable_advertised_address_is_told(tmp_path: Path) -> None:
    """CASES 55: the bootstrap answers, then sends its clients to a name that they cannot resolve."""
    properties = {"advertised.listeners": "PLAINTEXT://nohost.invalid:{port}"}
    with Broker(tmp_path, properties=properties) as broker:
        cluster = KafkaCluster(broker.bootstrap, timeout_s=SHORT_S)
        started = time.monotonic()
        with pytest.raises(ConnectionFailed, match=r"(?i)resolve.*nohost\.invalid") as caught:
            cluster.create_topics([TopicSpec("t", 1)])
        assert time.monotonic() - started < SHORT_S + SLACK_S
        assert "advertised.listeners" in caught.value.hint
        cluster.close()
