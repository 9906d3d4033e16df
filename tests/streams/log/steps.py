"""Steps that the tests of the log share."""

import time
from collections.abc import Callable

from ekko.schemas.errors import QueueFull, TransactionAborted
from ekko.streams.log import Cluster, Output, Partition, Reader, Record, TransactionalWriter, Writer, read_range
from tests.waiting import PATIENCE_S

Trim = Callable[[Partition, int], None]
"""Lets retention pass by on a partition, up to an offset."""


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
    assert writer.flush(PATIENCE_S) == 0
    writer.close()
    return offsets


def drain(reader: Reader, count: int, limit: int = 500) -> list[Record]:
    """Poll until `count` records are there, and once more to see that no more come."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
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
    deadline = time.monotonic() + PATIENCE_S
    while len(records := read_range(cluster, starts)) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return records


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


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
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert reader.poll(0.1) == []
    finally:
        reader.close()
