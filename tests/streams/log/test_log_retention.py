"""What the log no longer holds, or does not hold yet, is never passed over in silence."""

import time

import pytest

from ekko.schemas.errors import GapError
from ekko.streams.log import Cluster, Partition, Reader, read_all, read_range
from tests.streams.log.steps import (
    Trim,
    drain,
    poll_until_error,
    write,
)
from tests.waiting import PATIENCE_S


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


def test_a_gap_in_one_partition_costs_no_record_of_another(cluster: Cluster, trim: Trim, topic: str) -> None:
    kept, gone = Partition(topic, 0), Partition(topic, 1)
    write(cluster, topic, [b"%d" % number for number in range(20)])
    write(cluster, topic, [b"a", b"b", b"c"], number=1)
    trim(gone, 2)
    reader = cluster.reader()
    for _ in range(5):
        reader.assign({kept: 0, gone: 0})
        time.sleep(0.1)  # records and the broker's refusal wait in the reader's queue
        offsets: list[int] = []
        with pytest.raises(GapError):
            drain_into(offsets, reader)
        with pytest.raises(GapError):
            reader.poll(0.1)
        assert offsets == list(range(reader.position(kept)))
    reader.assign({kept: 15})
    assert [record.offset for record in drain(reader, 5)] == list(range(15, 20))
    reader.close()


def drain_into(offsets: list[int], reader: Reader) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        offsets += [record.offset for record in reader.poll(0.1)]


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


def test_a_gap_of_a_partition_no_longer_assigned_is_not_told(cluster: Cluster, trim: Trim, topic: str) -> None:
    gone, kept = Partition(topic, 0), Partition(topic, 1)
    write(cluster, topic, [b"a", b"b", b"c"])
    trim(gone, 2)
    reader = cluster.reader()
    for _ in range(5):
        reader.assign({gone: 0, kept: 0})
        time.sleep(0.1)  # the broker's answer waits in the reader's queue
        reader.assign({kept: 0})
        assert reader.poll(0.2) == []
    reader.close()
