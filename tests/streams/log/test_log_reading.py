"""Readers hand out committed records in order and keep their place."""

from ekko.streams.log import Cluster, Partition, Record
from tests.streams.log.steps import (
    drain,
    values,
    write,
)


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
