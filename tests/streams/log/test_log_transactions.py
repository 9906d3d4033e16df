"""Transactions are visible whole, and the newest writer of an identity is the only one."""

import os
import time

import pytest

from ekko.schemas.errors import Fenced, TransactionAborted
from ekko.streams.log import Cluster, Output, Partition, TopicSpec, read_all
from tests.streams.log.steps import (
    drain,
    read_committed,
    transact_in_the_end,
    values,
)
from tests.waiting import PATIENCE_S, wait_for


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
    ends = {first: (0, 5), second: (0, 2)}
    wait_for(lambda: cluster.bounds([first, second]) == ends)  # a marker counts a moment after what it commits
    writer.close()


def test_the_position_passes_the_last_marker(cluster: Cluster, topic: str) -> None:
    partition = Partition(topic, 0)
    writer = cluster.transactional_writer(topic)
    writer.transact([Output(partition, b"a")])
    writer.close()
    reader = cluster.reader()
    reader.assign({partition: 0})
    assert values(drain(reader, 1)) == [b"a"]
    deadline = time.monotonic() + PATIENCE_S
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
