"""One suite for both logs: what the real cluster does, its in-memory twin does too, else simulations mean little."""

import os
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from ekko.schemas.errors import EkkoError, Fenced, GapError, Purged, QueueFull, TopicMissing, TransactionAborted
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import (
    Cluster,
    Output,
    Partition,
    Reader,
    Record,
    TopicSpec,
    TransactionalWriter,
    Writer,
    read_all,
    read_range,
)
from ekko.streams.memory_broker import MemoryBroker
from ekko.streams.memory_faults import Faults
from ekko.streams.memory_log import MemoryCluster

Trim = Callable[[Partition, int], None]


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
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def trim(partition: Partition, offset: int) -> None:
        (future,) = admin.delete_records([TopicPartition(partition.topic, partition.number, offset)]).values()
        future.result(10)

    cluster = KafkaCluster(bootstrap)
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


def write(cluster: Cluster, topic: str, values: list[bytes | None], number: int = 0) -> list[int]:
    """Write with a plain writer; the offsets."""
    offsets: list[int] = []

    def delivered(offset: int | None, error: Exception | None) -> None:
        assert error is None
        assert offset is not None
        offsets.append(offset)

    writer = cluster.writer()
    for value in values:
        writer.send(Output(Partition(topic, number), value, key=b"k"), delivered)
    assert writer.flush(10.0) == 0
    writer.close()
    return offsets


def drain(reader: Reader, count: int, limit: int = 500) -> list[Record]:
    """Poll until `count` records are there, and once more to see that no more come."""
    records: list[Record] = []
    deadline = time.monotonic() + 10.0
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records came"
        polled = reader.poll(0.1, limit)
        assert len(polled) <= limit
        records.extend(polled)
    records.extend(reader.poll(0.1))
    return records


def read_committed(cluster: Cluster, partitions: list[Partition], count: int) -> list[Record]:
    """Everything, once `count` records are visible: a commit's answer may come before its markers are written."""
    starts = dict.fromkeys(partitions, 0)
    deadline = time.monotonic() + 5.0
    while len(records := read_range(cluster, starts)) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return records


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def test_topics_are_created_once_with_their_settings(cluster: Cluster, topic: str) -> None:
    other = f"{topic}-small"
    cluster.create_topics([TopicSpec(topic, 7), TopicSpec(other, 3, {"max.message.bytes": "2000"})])
    assert cluster.topics()[topic] == 2
    assert cluster.topics()[other] == 3
    assert cluster.topic_settings(other)["max.message.bytes"] == "2000"
    assert int(cluster.topic_settings(topic)["max.message.bytes"]) > 100_000
    cluster.delete_topics([other, f"{topic}-never-made"])
    assert other not in cluster.topics()


def test_a_missing_topic_is_an_error_at_once(cluster: Cluster, topic: str) -> None:
    missing = Partition(f"{topic}-typo", 0)
    with pytest.raises(TopicMissing, match="typo"):
        cluster.bounds([missing])
    with pytest.raises(TopicMissing, match="typo"):
        cluster.reader().assign({missing: 0})
    with pytest.raises(TopicMissing):
        cluster.reader().assign({Partition(topic, 2): 0})
    with pytest.raises(TopicMissing, match="typo"):
        read_all(cluster, missing.topic)


def test_records_come_in_order_with_key_value_and_offset(cluster: Cluster, topic: str) -> None:
    assert write(cluster, topic, [b"a", None, b"c"]) == [0, 1, 2]
    write(cluster, topic, [b"other"], number=1)
    reader = cluster.reader()
    reader.assign({Partition(topic, 0): 0, Partition(topic, 1): 0})
    records = drain(reader, 4)
    mine = [record for record in records if record.partition.number == 0]
    assert values(mine) == [b"a", None, b"c"]
    assert [record.offset for record in mine] == [0, 1, 2]
    assert {record.key for record in mine} == {b"k"}
    assert all(record.timestamp_ms > 0 and record.leader_epoch >= 0 for record in mine)
    assert [record.value for record in records if record.partition.number == 1] == [b"other"]
    assert reader.position(Partition(topic, 0)) == 3
    reader.close()


def test_poll_keeps_its_limit_and_its_place(cluster: Cluster, topic: str) -> None:
    write(cluster, topic, [b"%d" % number for number in range(10)])
    reader = cluster.reader()
    reader.assign({Partition(topic, 0): 3})
    assert [record.offset for record in drain(reader, 7, limit=2)] == list(range(3, 10))
    reader.close()


def test_a_new_assignment_drops_what_was_fetched_under_the_old_one(cluster: Cluster, topic: str) -> None:
    write(cluster, topic, [b"%d" % number for number in range(50)])
    reader = cluster.reader()
    reader.assign({Partition(topic, 0): 0})
    assert len(drain(reader, 5, limit=5)) >= 5
    reader.assign({Partition(topic, 0): 40})
    assert [record.offset for record in drain(reader, 10)] == list(range(40, 50))
    reader.close()


def test_a_paused_partition_keeps_its_place(cluster: Cluster, topic: str) -> None:
    first, second = Partition(topic, 0), Partition(topic, 1)
    write(cluster, topic, [b"a", b"b"])
    write(cluster, topic, [b"c"], number=1)
    reader = cluster.reader()
    reader.assign({first: 0, second: 0})
    reader.pause([first])
    assert values(drain(reader, 1)) == [b"c"]
    assert reader.position(first) == 0
    reader.resume([first])
    assert values(drain(reader, 2)) == [b"a", b"b"]
    reader.close()


def test_pausing_after_a_poll_loses_nothing_that_was_prefetched(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    write(cluster, topic, [b"%d" % number for number in range(6)])
    reader = cluster.reader()
    reader.assign({partition: 0})
    seen: list[Record] = []
    while not seen:
        seen = reader.poll(0.5, 2)
    reader.pause([partition])
    assert reader.poll(0.2) == []
    reader.resume([partition])
    seen += drain(reader, 6 - len(seen))
    assert [record.offset for record in seen] == list(range(6))
    reader.close()


def test_a_transaction_is_visible_whole_and_leaves_a_hole(cluster: Cluster, topic: str) -> None:
    first, second = Partition(topic, 0), Partition(topic, 1)
    writer = cluster.transactional_writer(topic)
    assert writer.transact([Output(first, b"a"), Output(second, b"b"), Output(first, b"c")]) == [0, 0, 1]
    assert writer.transact([Output(first, b"d")]) == [3]
    records = read_committed(cluster, [first, second], 4)
    assert [(record.partition.number, record.offset, record.value) for record in records] == [
        (0, 0, b"a"),
        (0, 1, b"c"),
        (0, 3, b"d"),
        (1, 0, b"b"),
    ]
    assert cluster.bounds([first, second]) == {first: (0, 5), second: (0, 2)}
    writer.close()


def test_the_position_passes_the_last_marker(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    writer = cluster.transactional_writer(topic)
    writer.transact([Output(partition, b"a")])
    writer.close()
    reader = cluster.reader()
    reader.assign({partition: 0})
    assert values(drain(reader, 1)) == [b"a"]
    deadline = time.monotonic() + 5.0
    while reader.position(partition) < 2:
        assert time.monotonic() < deadline
        assert reader.poll(0.1) == []
    reader.close()


def test_an_empty_transaction_writes_nothing(cluster: Cluster, topic: str) -> None:
    writer = cluster.transactional_writer(topic)
    assert writer.transact([]) == []
    assert cluster.bounds([Partition(topic, 0)])[Partition(topic, 0)] == (0, 0)
    writer.close()


def test_the_newest_writer_fences_the_older_ones(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    older = cluster.transactional_writer(topic)
    older.transact([Output(partition, b"older")])
    newer = cluster.transactional_writer(topic)
    with pytest.raises(Fenced):
        older.transact([Output(partition, b"zombie")])
    with pytest.raises(Fenced):
        older.transact([Output(partition, b"zombie again")])
    newer.transact([Output(partition, b"newer")])
    assert values(read_committed(cluster, [partition], 2)) == [b"older", b"newer"]
    older.close()
    newer.close()


def test_a_newer_writer_sees_all_that_its_elder_committed(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    for number in range(5):
        writer = cluster.transactional_writer(topic)
        # No waiting here: on return the elder's transaction has ended, markers included. A takeover rests on it.
        assert values(read_all(cluster, topic)) == [b"%d" % earlier for earlier in range(number)]
        writer.transact([Output(partition, b"%d" % number)])


def test_writers_of_other_identities_are_left_alone(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    one, other = cluster.transactional_writer(f"{topic}-1"), cluster.transactional_writer(f"{topic}-2")
    one.transact([Output(partition, b"one")])
    other.transact([Output(partition, b"other")])
    one.transact([Output(partition, b"one more")])
    assert values(read_committed(cluster, [partition], 3)) == [b"one", b"other", b"one more"]
    one.close()
    other.close()


def test_a_record_too_large_aborts_its_transaction_and_the_writer_goes_on(cluster: Cluster, topic: str) -> None:
    small = f"{topic}-small"
    cluster.create_topics([TopicSpec(small, 1, {"max.message.bytes": "2000"})])
    partition, other = Partition(small, 0), Partition(topic, 0)
    writer = cluster.transactional_writer(topic)
    with pytest.raises(TransactionAborted, match="small"):
        writer.transact([Output(other, b"with it"), Output(partition, os.urandom(5_000))])
    assert read_all(cluster, small) == []
    assert read_all(cluster, topic) == []
    transact_in_the_end(writer, [Output(other, b"next"), Output(partition, os.urandom(1_500))])
    assert values(read_committed(cluster, [other], 1)) == [b"next"]
    writer.close()
    cluster.delete_topics([small])


def test_a_plain_record_too_large_is_reported_and_the_next_one_goes(cluster: Cluster, topic: str) -> None:
    small = f"{topic}-small"
    cluster.create_topics([TopicSpec(small, 1, {"max.message.bytes": "2000"})])
    fates: dict[str, tuple[int | None, Exception | None]] = {}
    writer = cluster.writer()
    writer.send(Output(Partition(small, 0), os.urandom(5_000)), lambda offset, error: fates.update(big=(offset, error)))
    writer.flush(10.0)  # a batch is refused whole, so the next record must not be in it
    writer.send(Output(Partition(small, 0), b"ok"), lambda offset, error: fates.update(ok=(offset, error)))
    assert writer.flush(10.0) == 0
    assert fates["big"][0] is None
    assert isinstance(fates["big"][1], EkkoError)
    assert fates["ok"][1] is None
    assert values(read_all(cluster, small)) == [b"ok"]
    writer.close()
    cluster.delete_topics([small])


def test_a_full_queue_refuses_and_nothing_is_dropped(cluster: Cluster, topic: str) -> None:
    writer = cluster.writer(queue_bytes=1 << 20)
    sent = count_until_full(writer, Output(Partition(topic, 0), bytes(50_000)))
    assert 1 < sent < 100
    assert writer.flush(10.0) == 0
    assert len(read_all(cluster, topic)) == sent
    writer.send(Output(Partition(topic, 0), b"room again"))
    assert writer.flush(10.0) == 0
    writer.close()


def test_what_is_purged_is_known_not_to_be_in_the_log(cluster: Cluster, topic: str) -> None:
    fates: dict[bytes, Exception | None] = {}

    def send(writer: Writer, value: bytes) -> None:
        writer.send(Output(Partition(topic, 0), value), lambda _, error: fates.update({value: error}))

    writer = cluster.writer(linger_ms=20_000)
    send(writer, b"first")
    send(writer, b"second")
    writer.purge()
    assert writer.flush(10.0) == 0
    assert [type(error) for error in fates.values()] == [Purged, Purged]
    send(writer, b"third")
    assert writer.flush(10.0) == 0
    assert fates[b"third"] is None
    send(writer, b"fourth")
    writer.purge()
    send(writer, b"fifth")  # at once: what is sent after a purge must not be taken by it
    assert writer.flush(10.0) == 0
    assert isinstance(fates[b"fourth"], Purged)
    assert fates[b"fifth"] is None
    assert values(read_all(cluster, topic)) == [b"third", b"fifth"]
    writer.close()


def test_a_position_below_what_retention_left_is_a_gap(cluster: Cluster, trim: Trim, topic: str) -> None:
    partition = Partition(topic, 0)
    write(cluster, topic, [b"%d" % number for number in range(10)])
    trim(partition, 6)
    assert cluster.bounds([partition])[partition] == (6, 10)
    with pytest.raises(GapError, match=r"\b2\b.*\b6\b"):
        poll_until_error(cluster, {partition: 2})
    with pytest.raises(GapError):
        read_range(cluster, {partition: 2})
    assert [record.offset for record in read_range(cluster, {partition: 6})] == [6, 7, 8, 9]


def test_a_position_beyond_the_end_is_a_gap(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    write(cluster, topic, [b"a", b"b"])
    with pytest.raises(GapError, match=r"\b5\b"):
        poll_until_error(cluster, {partition: 5})


def test_a_partition_emptied_by_retention_is_caught_up(cluster: Cluster, trim: Trim, topic: str) -> None:
    partition = Partition(topic, 0)
    write(cluster, topic, [b"%d" % number for number in range(10)])
    trim(partition, 10)
    assert cluster.bounds([partition])[partition] == (10, 10)
    assert read_all(cluster, topic) == []
    reader = cluster.reader()
    reader.assign({partition: 10})
    assert reader.poll(0.2) == []
    assert reader.position(partition) == 10
    write(cluster, topic, [b"next"])
    assert [record.offset for record in drain(reader, 1)] == [10]
    reader.close()


def transact_in_the_end(writer: TransactionalWriter, outputs: list[Output]) -> list[int]:
    """After an abort librdkafka may have to abort once more (it renews its epoch); that too writes nothing."""
    for _ in range(3):
        try:
            return writer.transact(outputs)
        except TransactionAborted:
            continue
    return writer.transact(outputs)


def count_until_full(writer: Writer, output: Output) -> int:
    for sent in range(200):
        try:
            writer.send(output)
        except QueueFull:
            return sent
    return 200


def poll_until_error(cluster: Cluster, positions: dict[Partition, int]) -> None:
    reader = cluster.reader()
    try:
        reader.assign(positions)
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            assert reader.poll(0.1) == []
    finally:
        reader.close()
