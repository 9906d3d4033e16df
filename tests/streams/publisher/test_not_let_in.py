"""A broker that is not there or does not let the trainer in: the first call says so in time, and what to do."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import ConnectionFailed
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher

MODEL = ModelDeclaration("ctr", shards=2, tables=(TableDeclaration("users", dim=4),))
JAAS = "org.apache.kafka.common.security.plain.PlainLoginModule required"


def sasl(password: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "carol",
        "sasl.password": password,
    }


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that asks for a password."""
    properties = {
        "listeners": "SASL_PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{JAAS} username="admin" password="right" '
        'user_admin="right" user_carol="right";',
    }
    with Broker(tmp_path_factory.mktemp("guarded"), properties=properties) as broker:
        yield broker


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Path]]:
    """A broker with TLS, and the certificate of its authority."""
    folder = tmp_path_factory.mktemp("encrypted")
    key, certificate = folder / "key.pem", folder / "ca.pem"
    make_certificate(key, certificate)
    (folder / "broker.pem").write_text(key.read_text() + certificate.read_text())
    properties = {
        "listeners": "SSL://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "listener.security.protocol.map": "SSL:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificate),
    }
    with Broker(folder / "data", properties=properties) as broker:
        yield broker, certificate


def make_certificate(key: Path, certificate: Path) -> None:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    request += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True, timeout=180)


def cluster_at(broker: Broker, settings: Mapping[str, str], timeout_s: float = 5.0) -> KafkaCluster:
    return KafkaCluster(broker.bootstrap, settings, timeout_s=timeout_s)


def publish_once(cluster: KafkaCluster) -> int:
    """Declare the model and publish a row: what everybody who is let in can do."""
    with closing(cluster):
        declare(cluster, Declarations(models=(MODEL,)), lambda region: pytest.fail(str(region)))
        with Publisher("ctr", cluster=cluster, timeout_s=60.0) as publisher:
            publisher.publish("users", [1], np.ones((1, 4)))
            publisher.flush(120)
            return publisher.acknowledged.rows


def refusal(cluster: KafkaCluster) -> ConnectionFailed:
    """The error of the first call of a trainer that is not let in, which must come in time."""
    started = time.monotonic()
    with closing(cluster), pytest.raises(ConnectionFailed) as error:
        Publisher("ctr", cluster=cluster, timeout_s=5.0)
    assert time.monotonic() - started < 25, "so much, and what a busy machine adds"
    assert error.value.hint
    return error.value


def test_a_password_lets_in(guarded: Broker) -> None:
    assert publish_once(cluster_at(guarded, sasl("right"), 60.0)) == 1


def test_a_wrong_password_is_told_by_the_first_call(guarded: Broker) -> None:
    error = refusal(cluster_at(guarded, sasl("wrong")))
    assert "authentication" in error.message.lower()


def test_a_missing_password_is_told_by_the_first_call(guarded: Broker) -> None:
    refusal(cluster_at(guarded, {}))


def test_the_right_authority_lets_in(encrypted: tuple[Broker, Path]) -> None:
    broker, certificate = encrypted
    settings = {"security.protocol": "SSL", "ssl.ca.location": str(certificate)}
    assert publish_once(cluster_at(broker, settings, 60.0)) == 1


def test_an_unknown_authority_is_told_by_the_first_call(encrypted: tuple[Broker, Path], tmp_path: Path) -> None:
    broker, _ = encrypted
    make_certificate(tmp_path / "other.key", tmp_path / "other.pem")
    settings = {"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "other.pem")}
    error = refusal(cluster_at(broker, settings))
    assert "certificate" in error.message.lower()


def test_an_advertised_name_that_does_not_resolve_is_told_by_the_first_call(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        assert publish_once(KafkaCluster(broker.bootstrap, timeout_s=60.0)) == 1
    properties = {"advertised.listeners": "PLAINTEXT://no-such-host.invalid:{port}"}
    with Broker(tmp_path / "data", properties=properties) as broker:
        error = refusal(KafkaCluster(broker.bootstrap, timeout_s=5.0))
    assert "no-such-host.invalid" in error.message
    assert "advertised.listeners" in error.hint


def test_no_broker_is_told_by_the_first_call_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1\b") as error:
        Publisher("ctr", bootstrap="127.0.0.1:1", timeout_s=2.0)
    assert time.monotonic() - started < 20, "so much, and what a busy machine adds"
    assert "--bootstrap" in error.value.hint


def test_a_name_that_does_not_resolve_is_told_by_the_first_call_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid"):
        Publisher("ctr", bootstrap="no-such-host.invalid:9092", timeout_s=2.0)
    assert time.monotonic() - started < 20, "so much, and what a busy machine adds"
