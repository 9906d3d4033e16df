"""The log as the data plane sees it: hand-assigned read-committed readers, and writers with acknowledged fate.

Two implementations: `streams.kafka` (the real one) and `streams.memory.log` (a twin for seeded simulation). Everything
that decides is written against these protocols; time-outs are explicit and nothing blocks for ever.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ekko.schemas.errors import ConnectionFailed, TopicMissing

if TYPE_CHECKING:
    from ekko.streams.groups import Group


class Partition(NamedTuple):
    """A topic's partition."""

    topic: str
    number: int


class Bounds(NamedTuple):
    """Offsets of a partition: `low` is the first that still exists, `end` the last stable offset."""

    low: int
    end: int


@dataclass(frozen=True, slots=True)
class Record:
    """One committed record; `leader_epoch` is -1 where the log does not tell it."""

    partition: Partition
    offset: int
    key: bytes | None
    value: bytes | None = field(repr=False)
    timestamp_ms: int = 0
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True)
class Output:
    """One record to be written."""

    partition: Partition
    value: bytes | None = field(repr=False)
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic to be created."""

    name: str
    partitions: int
    settings: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """Reads committed records of partitions assigned by hand, each in offset order."""

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Replace the assignment; whatever was fetched under the old one is dropped.

        Raises:
            TopicMissing: a topic or partition does not exist.
        """

    def poll(self, timeout_s: float, limit: int = 500) -> list[Record]:
        """Up to `limit` records; returns as soon as there are any, at the latest after `timeout_s`.

        Records that came before something went wrong are handed out first. A gap is told by every call until `assign`.

        Raises:
            GapError: a position is below the first offset that exists, or beyond the end (named with its numbers).
            ConnectionFailed: authentication or resolution failed for good.
        """

    def position(self, partition: Partition) -> int:
        """Next offset to be read: after the last record handed out, past transaction markers once they are passed."""

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Stop handing out these partitions' records until `resume`; positions stay."""

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Undo `pause`."""

    def close(self) -> None:
        """Release the connection."""


Delivered = Callable[[int | None, Exception | None], None]
"""Called with the offset of the delivered record, or with None and the error."""


class Writer(Protocol):
    """Idempotent writer with delivery reports (publishers, signals, members)."""

    def send(self, output: Output, delivered: Delivered | None = None) -> None:
        """Enqueue one record; the fate comes to `delivered` during `poll` or `flush`.

        Raises:
            QueueFull: the bounded queue is full; nothing was enqueued.
        """

    def poll(self, timeout_s: float = 0.0) -> None:
        """Serve delivery reports."""

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is delivered; returns how many records are still in flight."""

    def purge(self) -> None:
        """Drop what is enqueued and not sent yet: its fate, `Purged`, comes to `delivered` like every other."""

    def close(self) -> None:
        """Flush what can be flushed within a second and release the connection."""


class TransactionalWriter(Protocol):
    """Writer under a `transactional.id`: the newest one fences all older ones, here and now, when it is made."""

    @property
    def wire_bytes(self) -> int:
        """Bytes that it has put on the network so far, compressed, with all its requests; told with a delay of 0.1 s.

        Zero for ever unless it was made to count.
        """

    def transact(self, outputs: Sequence[Output], timeout_s: float = 10.0) -> list[int]:
        """Write all of `outputs` in one transaction and return their offsets.

        Raises:
            Fenced: another writer has this identity, and finds in the log what there is of this one: nothing of these,
                unless the answer to their commit was lost.
            CommitUncertain: committed or not, nobody here knows; make a new writer and read back.
            ConnectionFailed: not let in, before the commit was asked for; nothing was written.
            TransactionAborted: nothing was written, the writer may go on (a record too large is named).
        """

    def close(self) -> None:
        """Release the connection; an open transaction is aborted."""


class Cluster(Protocol):
    """One Kafka cluster, or its twin."""

    def reader(self, *, idle_ms: int = 100) -> Reader:
        """A new reader without assignment; brokers hold its requests for `idle_ms` where nothing is new.

        What ends with a transaction marker is known to be read to its end only after so long.
        """

    def writer(
        self, *, linger_ms: float = 0.0, queue_bytes: int = 64 * 1024 * 1024, batch_bytes: int = 1_000_000
    ) -> Writer:
        """A new idempotent writer; a topic counts batches, so `batch_bytes` must be below its max.message.bytes."""

    def transactional_writer(self, transactional_id: str, *, thin_link: bool = False) -> TransactionalWriter:
        """A new transactional writer; on return every older one of this identity is fenced, its transaction ended.

        Args:
            thin_link: bandwidth is dear: spend processor time on compressing, and count `wire_bytes`.
        """

    def group(self, name: str) -> "Group":
        """A consumer group as this process sees it, for lag tools; nothing is joined yet."""

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        """First and last stable offsets, asked of the brokers now.

        Raises:
            TopicMissing: a topic or partition does not exist.
            ConnectionFailed: no broker answers within the time-out.
        """

    def topics(self) -> dict[str, int]:
        """Every topic's partition count."""

    def topic_settings(self, topic: str) -> dict[str, str]:
        """A topic's settings in force, e.g. `max.message.bytes`."""

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """Create what does not exist yet and wait until it is usable; existing topics are left as they are."""

    def delete_topics(self, names: Iterable[str]) -> None:
        """Delete what exists and wait until it is gone."""

    def close(self) -> None:
        """Release the admin connection."""


def reading(cluster: Cluster, positions: Mapping[Partition, int]) -> Reader:
    """A new reader of these partitions, or none at all: raises as `Reader.assign`."""
    reader = cluster.reader()
    try:
        reader.assign(positions)
    except BaseException:
        reader.close()
        raise
    return reader


_BRIEF_MS = 1
"""Idle wait of readers that end soon: reading a short topic to its end takes 9 ms (13 with 5, over 100 by default)."""
_BRIEF_S = 0.002
"""A poll that hears of an end, and of no record, lasts to its time-out: one of 10 ms was half of such a reading."""


def read_between(cluster: Cluster, bounds: Mapping[Partition, Bounds], *, timeout_s: float = 30.0) -> list[Record]:
    """Every committed record between these bounds, asked for shortly before, ordered by partition and offset.

    Raises:
        GapError: the log no longer holds the first of them.
        ConnectionFailed: the ends were not reached in time.
    """
    waiting = {partition for partition, (start, end) in bounds.items() if start < end}
    if not waiting:
        return []
    records: list[Record] = []
    reader = cluster.reader(idle_ms=_BRIEF_MS)
    deadline = time.monotonic() + timeout_s
    try:
        reader.assign({partition: bounds[partition].low for partition in waiting})
        while waiting:
            if time.monotonic() > deadline:
                left = (f"{p.topic}[{p.number}] (at {reader.position(p)} of {bounds[p].end})" for p in sorted(waiting))
                raise ConnectionFailed(
                    f"{', '.join(left)} not read to the end within {timeout_s:g} s",
                    hint="the brokers are slow or away: try again; `ekko doctor` looks at them",
                )
            polled = reader.poll(_BRIEF_S)
            records.extend(record for record in polled if record.offset < bounds[record.partition].end)
            # The test is position >= end, never "saw offset end - 1": the last offset may be a transaction marker.
            waiting = {partition for partition in waiting if reader.position(partition) < bounds[partition].end}
    finally:
        reader.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))


def read_range(cluster: Cluster, starts: Mapping[Partition, int], *, timeout_s: float = 30.0) -> list[Record]:
    """Every committed record from `starts` to the ends seen now; raises as `read_between`, and TopicMissing."""
    bounds = cluster.bounds(starts)
    asked = {partition: Bounds(start, bounds[partition].end) for partition, start in starts.items()}
    return read_between(cluster, asked, timeout_s=timeout_s)


def read_all(cluster: Cluster, topic: str, *, timeout_s: float = 30.0) -> list[Record]:
    """Every committed record of a (small) topic as of now; raises as `read_range`, and TopicMissing."""
    count = cluster.topics().get(topic)
    if count is None:
        raise TopicMissing(f"topic {topic} does not exist", hint="create it with `ekko model apply FILE`")
    bounds = cluster.bounds(Partition(topic, number) for number in range(count))
    return read_between(cluster, bounds, timeout_s=timeout_s)
