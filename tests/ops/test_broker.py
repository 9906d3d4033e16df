"""The local broker, and CASES 20: whatever ends it, it starts again with all that it acknowledged."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from ekko.ops.broker import Broker, BrokerError, ports
from ekko.ops.broker.folder import DataFolder, Running

TIMEOUT_S = 120.0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A broker of this test alone, not started."""
    broker = Broker(tmp_path / "data")
    yield broker
    broker.stop()


def create(broker: Broker, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(TIMEOUT_S)


def produce(broker: Broker, topic: str, values: list[bytes]) -> None:
    """Produce and see every record acknowledged."""
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(TIMEOUT_S) == 0
    assert failures == []


def consume(broker: Broker, topic: str, count: int) -> list[bytes]:
    """Read from the beginning until `count` records have come."""
    settings = {"bootstrap.servers": broker.bootstrap, "group.id": topic}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    values: list[bytes] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


def timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_produces_and_consumes(broker: Broker, topic_prefix: str) -> None:
    create(broker, topic_prefix)
    sent = [b"%d" % number for number in range(100)]
    produce(broker, topic_prefix, sent)
    assert consume(broker, topic_prefix, len(sent)) == sent


def test_five_stops_and_starts_keep_everything(own: Broker) -> None:
    own.start()
    create(own, "t")
    address, sent = own.bootstrap, []
    for cycle in range(5):
        sent.append(b"%d" % cycle)
        produce(own, "t", sent[-1:])
        own.stop()
        assert not own.running
        assert ports.is_free(own.host, int(address.split(":")[1]))
        own.start()
        assert own.bootstrap == address
    assert consume(own, "t", len(sent)) == sent


def test_kill_minus_nine_loses_nothing_acknowledged(own: Broker) -> None:
    own.start()
    own.stop()
    calm_s = timed(own.start)  # when nothing of the last run is in the way
    create(own, "t")
    sent = [b"%d" % number for number in range(2_000)]
    produce(own, "t", sent)
    took_s: list[float] = []
    soon_s = max(10.0, 2 * calm_s)
    while not took_s or (took_s[-1] >= soon_s and len(took_s) < 5):  # a busy machine may take that long now and then
        own.kill()
        assert not own.running
        took_s.append(timed(own.start))
    assert took_s[-1] < soon_s, "the old session must not hold up a restart for its default 9 s"
    assert consume(own, "t", len(sent)) == sent


def test_another_object_takes_up_the_folder_on_the_same_port(own: Broker) -> None:
    own.start()
    create(own, "t")
    produce(own, "t", [b"kept"])
    own.stop()
    with Broker(own.folder.path) as second:
        assert second.bootstrap == own.bootstrap
        assert consume(second, "t", 1) == [b"kept"]


def test_each_folder_has_a_cluster_of_its_own(broker: Broker, own: Broker) -> None:
    own.start()
    clusters = {
        AdminClient({"bootstrap.servers": b.bootstrap}).list_topics(timeout=TIMEOUT_S).cluster_id for b in (broker, own)
    }
    assert len(clusters) == 2


def test_a_broker_that_ended_by_itself_is_started_again(own: Broker) -> None:
    own.start()
    first = own.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert own.wait(TIMEOUT_S) == -signal.SIGKILL
    assert not own.running
    own.start()
    assert own.pid not in (None, first)


def test_a_second_broker_on_the_folder_is_refused(own: Broker) -> None:
    own.start()
    with pytest.raises(BrokerError, match=rf"pid {own.pid}\) already runs on") as caught:
        Broker(own.folder.path).start()
    assert "--data" in caught.value.hint
    assert own.running


def test_a_stale_pid_of_another_program_is_no_obstacle(own: Broker) -> None:
    own.folder.path.mkdir()
    own.folder.write_running(Running(os.getpid(), ports.free(own.host), controller_port=1, started_by=1))
    assert own.folder.living_pid() is None
    own.start()
    last = own.folder.last_run()
    assert last is not None
    assert (last.pid, last.started_by, f"127.0.0.1:{last.port}") == (own.pid, os.getpid(), own.bootstrap)


def test_a_busy_port_is_named(broker: Broker, tmp_path: Path) -> None:
    port = int(broker.bootstrap.split(":")[1])
    with pytest.raises(BrokerError, match=f"port {port} on 127.0.0.1 is in use") as caught:
        Broker(tmp_path / "data", port=port).start()
    assert "--port" in caught.value.hint
    assert not (tmp_path / "data").exists(), "a refused start leaves nothing behind"


def test_a_damaged_folder_is_told_with_the_end_of_the_log(own: Broker) -> None:
    own.start()
    own.stop()
    (own.folder.path / "log" / "meta.properties").write_text("this is not what Kafka wrote\n")
    with pytest.raises(
        BrokerError, match=r"(?s)ended with code 1 while starting; its log ends:.*node ID not found"
    ) as caught:
        own.start()
    assert str(own.folder.log) in caught.value.hint
    assert not own.running


def test_an_unknown_setting_value_is_told(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"num\.io\.threads"):
        Broker(tmp_path / "data", properties={"num.io.threads": "many"}).start()


def test_what_is_not_prepared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EKKO_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BrokerError, match="not prepared in") as caught:
        Broker(tmp_path / "data").start()
    assert "make setup" in caught.value.hint


@pytest.fixture
def foster(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], DataFolder]]:
    """A process of its own that has started a broker."""
    broker = f"Broker(Path({str(tmp_path / 'data')!r}))"
    program = f"from pathlib import Path; from ekko.ops.broker import Broker; {broker}.start(); print(1); input()"
    command = [sys.executable, "-uc", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1\n"
        yield parent, DataFolder(tmp_path / "data")
        parent.kill()


def test_no_orphan_outlives_its_parent(foster: tuple[subprocess.Popen[bytes], DataFolder]) -> None:
    parent, folder = foster
    broker = psutil.Process(folder.living_pid() or 0)
    parent.kill()
    broker.wait(TIMEOUT_S)


def test_a_restart_waits_for_the_orphan_to_end(foster: tuple[subprocess.Popen[bytes], DataFolder], own: Broker) -> None:
    """A supervisor starts a killed `ekko broker` again at once: the broker left behind must not be in its way."""
    parent, folder = foster
    first = folder.last_run()
    assert first is not None
    parent.kill()
    parent.wait(TIMEOUT_S)
    own.start()
    assert own.bootstrap == f"127.0.0.1:{first.port}"


def test_the_command_prints_its_address_and_ends_on_sigterm(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ekko")), "broker", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        bootstrap = process.stdout.readline().strip()
        pid = DataFolder(tmp_path).living_pid()
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=TIMEOUT_S)
    assert bootstrap.startswith("127.0.0.1:")
    assert process.returncode == 0, complaints
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_the_command_tells_errors_in_two_lines(broker: Broker, tmp_path: Path) -> None:
    port = broker.bootstrap.split(":")[1]
    command = [str(Path(sys.executable).with_name("ekko")), "broker", "--data", str(tmp_path / "data"), "--port", port]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"ekko: port {port} on 127.0.0.1 is in use by another program",
        "  Choose another with --port N, or leave --port out for a free one.",
    ]
