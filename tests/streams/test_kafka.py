"""The Kafka adapter on a real broker: what the conformance suite (shared with the in-memory twin) does not cover."""

import gc
import logging
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ekko.ops.broker import Broker
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, Fenced, GapError, TopicMissing, TransactionAborted
from ekko.streams.kafka import KafkaCluster, group
from ekko.streams.kafka.said import log
from ekko.streams.log import Output, Partition, Record, TopicSpec, read_all
from tests.streams.log.steps import read_committed
from tests.waiting import PATIENCE_S, wait_for


@pytest.fixture
def cluster(broker: Broker, patient_transactions: None) -> Iterator[KafkaCluster]:
    del patient_transactions
    with closing(KafkaCluster(broker.bootstrap, timeout_s=60.0)) as cluster:
        yield cluster


def test_a_transaction_returns_the_offsets_of_its_records(cluster: KafkaCluster, topic_prefix: str) -> None:
    cluster.create_topics([TopicSpec(topic_prefix, 2)])
    writer = cluster.transactional_writer(topic_prefix)
    first, second = Partition(topic_prefix, 0), Partition(topic_prefix, 1)
    assert writer.transact([Output(first, b"a"), Output(second, b"b"), Output(first, b"c")]) == [0, 0, 1]
    assert writer.transact([Output(first, b"d")]) == [3]  # offset 2 is the transaction's marker
    assert [(r.partition.number, r.offset, r.value) for r in read_committed(cluster, [first, second], 4)] == [
        (0, 0, b"a"),
        (0, 1, b"c"),
        (0, 3, b"d"),
        (1, 0, b"b"),
    ]


def test_a_reader_that_waits_leaves_the_processor_alone(cluster: KafkaCluster, topic_prefix: str) -> None:
    cluster.create_topics([TopicSpec(topic_prefix, 1)])
    reader = cluster.reader()
    reader.assign({Partition(topic_prefix, 0): 0})
    reader.poll(1.0)
    took_s: list[float] = []
    while len(took_s) < 10 and min(took_s, default=1.0) >= 0.25:  # a busy machine makes some slow, the mistake all
        before_s = time.thread_time()
        for _ in range(100):
            assert reader.poll(0.01) == []
        took_s.append(time.thread_time() - before_s)
    reader.close()
    assert min(took_s) < 0.25, "asked librdkafka over and over for the rest of a millisecond, it was 0.7"


def test_a_reader_passes_the_marker_at_the_end(cluster: KafkaCluster, topic_prefix: str) -> None:
    cluster.create_topics([TopicSpec(topic_prefix, 1)])
    partition = Partition(topic_prefix, 0)
    cluster.transactional_writer(topic_prefix).transact([Output(partition, b"a")])
    wait_for(lambda: cluster.bounds([partition])[partition].end)  # the marker comes after the commit's answer
    end = cluster.bounds([partition])[partition].end
    assert end == 2
    reader = cluster.reader()
    reader.assign({partition: 0})
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while reader.position(partition) < end and time.monotonic() < deadline:
        records += reader.poll(0.1)
    assert [record.offset for record in records] == [0]
    assert reader.position(partition) == end
    reader.close()


def test_transactions_follow_each_other_fast(cluster: KafkaCluster, topic_prefix: str) -> None:
    """Librdkafka's default retry.backoff.ms makes each take 107 ms; ours must stay far below."""
    cluster.create_topics([TopicSpec(topic_prefix, 1)])
    writer = cluster.transactional_writer(topic_prefix)
    writer.transact([Output(Partition(topic_prefix, 0), b"warm")])
    medians_s: list[float] = []
    while len(medians_s) < 10 and min(medians_s, default=1.0) >= 0.1:  # a busy machine makes some slow, the default all
        took_s = []
        for _ in range(20):
            started = time.monotonic()
            writer.transact([Output(Partition(topic_prefix, 0), b"x")])
            took_s.append(time.monotonic() - started)
        medians_s.append(statistics.median(took_s))
    assert min(medians_s) < 0.1, medians_s


def test_a_newer_writer_fences_the_older(cluster: KafkaCluster, topic_prefix: str) -> None:
    cluster.create_topics([TopicSpec(topic_prefix, 1)])
    partition = Partition(topic_prefix, 0)
    zombie = cluster.transactional_writer(topic_prefix)
    zombie.transact([Output(partition, b"before")])
    successor = cluster.transactional_writer(topic_prefix)
    with pytest.raises(Fenced, match=topic_prefix):
        zombie.transact([Output(partition, b"zombie")])
    successor.transact([Output(partition, b"after")])
    assert [record.value for record in read_committed(cluster, [partition], 2)] == [b"before", b"after"]


def test_a_record_too_large_aborts_and_the_writer_goes_on(cluster: KafkaCluster, topic_prefix: str) -> None:
    cluster.create_topics([TopicSpec(topic_prefix, 1, {"max.message.bytes": "1000", "compression.type": "producer"})])
    partition = Partition(topic_prefix, 0)
    writer = cluster.transactional_writer(topic_prefix)
    noise = os.urandom(10_000)  # lz4 must not make it fit
    with pytest.raises(TransactionAborted, match=f"{len(noise)} bytes"):
        writer.transact([Output(partition, b"small"), Output(partition, noise)])
    writer.transact([Output(partition, b"next")])
    assert [record.value for record in read_committed(cluster, [partition], 1)] == [b"next"]


def test_offsets_that_are_gone_are_named(cluster: KafkaCluster, topic_prefix: str) -> None:
    cluster.create_topics([TopicSpec(topic_prefix, 1)])
    partition = Partition(topic_prefix, 0)
    writer = cluster.writer()
    for number in range(10):
        writer.send(Output(partition, str(number).encode()))
    assert writer.flush(120) == 0
    reader = cluster.reader()
    reader.assign({partition: 50})
    with pytest.raises(GapError, match=r"offset 50 .* 0\.\.10"):
        _poll_for(reader)
    reader.close()


def _poll_for(reader, seconds: float = PATIENCE_S) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        reader.poll(0.2)


def test_a_typo_in_the_topic_is_an_error_at_once(cluster: KafkaCluster) -> None:
    reader = cluster.reader()
    with pytest.raises(TopicMissing, match="gradinets"):
        reader.assign({Partition("gradinets", 0): 0})
    with pytest.raises(TopicMissing, match="gradinets"):
        read_all(cluster, "gradinets")
    reader.close()


def test_no_broker_is_an_error_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    cluster = KafkaCluster(f"127.0.0.1:{port}", timeout_s=1)
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match=str(port)):
        cluster.topics()
    with pytest.raises(ConnectionFailed, match=str(port)):
        cluster.transactional_writer("nobody")
    assert time.monotonic() - started < 18, "each would take 10 s by default"


def test_an_unresolvable_name_is_named() -> None:
    cluster = KafkaCluster("nohost.invalid:9092", timeout_s=2)
    with pytest.raises(ConnectionFailed, match="nohost"):
        cluster.topics()


def test_settings_that_exactness_rests_on_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"isolation\.level"):
        KafkaCluster("localhost:1", {"isolation.level": "read_uncommitted"})
    with pytest.raises(ConfigurationError, match=r"no\.such\.setting"):
        KafkaCluster("localhost:1", {"no.such.setting": "1"})


def test_topics_are_created_once_and_deleted_for_good(cluster: KafkaCluster, topic_prefix: str) -> None:
    spec = TopicSpec(topic_prefix, 3, {"retention.ms": "12345"})
    cluster.create_topics([spec])
    cluster.create_topics([spec])
    assert cluster.topics()[topic_prefix] == 3
    assert cluster.topic_settings(topic_prefix)["retention.ms"] == "12345"
    cluster.delete_topics([topic_prefix, "never-existed"])
    assert topic_prefix not in cluster.topics()


def test_offsets_are_told_again_after_the_broker_was_killed(tmp_path: Path) -> None:
    # Each restart begins another leader epoch, which a client that asked before does not know.
    with Broker(tmp_path) as own:
        cluster = KafkaCluster(own.bootstrap, timeout_s=60.0)
        cluster.create_topics([TopicSpec("killed", 1)])
        partition = Partition("killed", 0)
        for _ in range(3):
            assert cluster.bounds([partition])[partition].low == 0
            own.kill()
            own.start()
        assert cluster.bounds([partition])[partition].low == 0
        cluster.close()


def test_a_client_that_is_let_go_is_gone_at_once(broker: Broker, topic_prefix: str) -> None:
    """Garbage is collected by any thread, perhaps one of librdkafka's in a callback: clients must never be garbage."""

    def threads() -> set[str]:
        return {thread.name for thread in Path("/proc/self/task").iterdir()}

    gc.collect()
    gc.disable()
    try:
        before = threads()
        own = KafkaCluster(broker.bootstrap)
        writers = own.writer(), own.transactional_writer(topic_prefix), own.transactional_writer("t", thin_link=True)
        others = own.reader(), own.group(topic_prefix)
        own.topics()
        theirs = threads() - before
        assert len(theirs) > 10
        for client in (*writers, *others):
            client.close()
        del client, writers, others, own
        deadline = time.monotonic() + PATIENCE_S
        while left := theirs & threads():  # a thread that was waited for stands there for a moment longer
            assert time.monotonic() < deadline, left
    finally:
        gc.enable()


def test_a_group_that_does_not_let_go_is_not_waited_for(
    cluster: KafkaCluster, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Seen of librdkafka once, fourteen minutes long: a store whose broker was back a moment before did not end."""
    let_go, member = threading.Event(), cluster.group(topic_prefix)
    stuck = member._consumer
    monkeypatch.setattr(group, "_LEAVE_S", 0.2)
    monkeypatch.setattr(member, "_consumer", SimpleNamespace(close=lambda: let_go.wait(120)))
    member.close()
    assert f"group {topic_prefix} does not let go" in caplog.text
    let_go.set()
    stuck.close()


def test_what_librdkafka_repeats_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="ekko.kafka"):
        for milliseconds in range(5):
            log.error("FAIL [rdkafka#consumer-%d] refused (after %dms in state CONNECT)", milliseconds, milliseconds)
        log.error("FAIL something else")
    assert len(caplog.records) == 2


@pytest.mark.parametrize("known", ["nothing", "another topic"])
def test_a_reader_that_is_assigned_a_topic_late_does_not_wait_for_librdkafka_to_ask_about_it(
    cluster: KafkaCluster, topic_prefix: str, known: str
) -> None:
    """By itself it asks while it connects, and then once a second; each of three readings would take most of that."""
    first, second = Partition(f"{topic_prefix}-1", 0), Partition(f"{topic_prefix}-2", 0)
    cluster.create_topics([TopicSpec(first.topic, 1), TopicSpec(second.topic, 1)])
    cluster.transactional_writer(topic_prefix).transact([Output(first, b"a"), Output(second, b"b")])
    read_committed(cluster, [first, second], 2)
    took_s: list[float] = []
    while len(took_s) < 9 and min(took_s, default=1.0) >= 0.5:  # a busy machine makes some slow, librdkafka most
        readers = [cluster.reader() for _ in range(3)]
        if known == "another topic":
            for reader in readers:
                reader.assign({first: 0})
                assert reader.poll(PATIENCE_S)
        time.sleep(1.2)
        for reader in readers:
            started = time.monotonic()
            reader.assign({second: 0})
            assert [record.value for record in reader.poll(PATIENCE_S)] == [b"b"]
            took_s.append(time.monotonic() - started)
            reader.close()
    assert min(took_s) < 0.5
