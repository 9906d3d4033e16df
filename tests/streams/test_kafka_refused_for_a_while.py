"""A cluster that was let in and is refused later: what that says of blocks on their way, and that it may pass."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.schemas.errors import ConnectionFailed, PublishUncertain
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec, Writer
from tests.waiting import PATIENCE_S

LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
PROPERTIES = {
    "listeners": "CLIENTS://{host}:{port},INTERNAL://127.0.0.1:0,CONTROLLER://127.0.0.1:{controller_port}",
    "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "INTERNAL",
    "sasl.enabled.mechanisms": "PLAIN",
}
PARTITION = Partition("t", 0)
TIMEOUT_S = 30.0


def broker_of(folder: Path, password: str) -> Broker:
    """The folder's broker, with this password of carol's; the folder's next one may have another."""
    users = f'{LOGIN} user_carol="{password}";'
    return Broker(folder, properties={**PROPERTIES, "listener.name.clients.plain.sasl.jaas.config": users})


@pytest.fixture
def let_in(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KafkaCluster]:
    """A cluster with a topic, by a broker that is gone when the test begins; `param`: when blocks are given up, ms."""
    with broker_of(tmp_path, "right") as broker:
        settings = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "carol"}
        settings |= {"sasl.password": "right", "delivery.timeout.ms": str(getattr(request, "param", 2_000))}
        cluster = KafkaCluster(broker.bootstrap, settings, timeout_s=TIMEOUT_S)
        cluster.create_topics([TopicSpec(PARTITION.topic, 1)])
    yield cluster
    cluster.close()


def fate_of_one(writer: Writer) -> Exception | None:
    """What becomes of a block."""
    fates: list[Exception | None] = []
    writer.send(Output(PARTITION, b"x"), lambda _, error: fates.append(error))
    deadline = time.monotonic() + PATIENCE_S
    while not fates:
        assert time.monotonic() < deadline
        writer.poll(0.05)
    return fates[0]


def told(call: Callable[[], object]) -> None:
    """The call, made again and again, tells that the password is refused."""

    def again() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            call()

    with pytest.raises(ConnectionFailed, match=r"(?i)authentication"):
        again()


def goes_on(call: Callable[[], object]) -> None:
    """The call, made again and again, soon raises no more."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if call():
                return
        except ConnectionFailed:
            assert time.monotonic() < deadline
        assert time.monotonic() < deadline


@pytest.mark.parametrize("let_in", [15_000], indirect=True)  # time enough to be refused
def test_what_timed_out_while_the_password_was_refused_may_be_in_the_log(let_in: KafkaCluster, tmp_path: Path) -> None:
    """It may have been sent, and its answer lost, before the connection was: librdkafka does not tell."""
    writer = let_in.writer()
    with broker_of(tmp_path, "other"):
        error = fate_of_one(writer)
        assert isinstance(error, PublishUncertain)
        assert "authentication" in error.message.lower(), "the reason is named"
        with pytest.raises(ConnectionFailed, match=r"(?i)authentication"):
            writer.send(Output(PARTITION, b"y"))
    writer.close()


def test_a_refusal_that_passes_is_told_once_and_then_all_goes_on(let_in: KafkaCluster, tmp_path: Path) -> None:
    """As of SASL users that a broker has not loaded yet when it is back."""
    calls: list[Callable[[], object]]
    with broker_of(tmp_path, "right"):
        reader, writer = let_in.reader(), let_in.writer()
        reader.assign({PARTITION: 0})
        calls = [lambda: fate_of_one(writer) is None, lambda: reader.poll(0.1), lambda: let_in.bounds([PARTITION])]
        for call in calls:
            goes_on(call)
    with broker_of(tmp_path, "other"):
        for call in calls:
            told(call)
    with broker_of(tmp_path, "right"):
        for call in calls:
            goes_on(call)
    reader.close()
    writer.close()
