"""The in-memory twin of `streams.kafka`: one process's connection to a `MemoryBroker`, with the faults between them.

Single-threaded and without sleeps: waiting is virtual, so seeded simulations replay exactly. The conformance suite
(tests/streams/log) holds it to what the real cluster does.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from ekko.schemas.errors import (
    CommitUncertain,
    Fenced,
    GapError,
    PublishUncertain,
    Purged,
    QueueFull,
    TransactionAborted,
)
from ekko.streams.log import Bounds, Delivered, Output, Partition, Record, TopicSpec
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Fate, Faults
from ekko.streams.memory.group import MemoryGroup

DELIVERY_TIMEOUT_S = 30.0


class MemoryReader:
    """Implements `log.Reader`."""

    def __init__(self, broker: MemoryBroker, faults: Faults) -> None:
        self._broker = broker
        self._faults = faults
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._waited_s = 0.0

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """See `log.Reader.assign`."""
        self._faults.require_broker()
        for partition in positions:
            self._broker.log(partition)
        self._positions = dict(positions)
        self._paused = set()
        self._waited_s = 0.0

    def poll(self, timeout_s: float, limit: int = 500) -> list[Record]:
        """See `log.Reader.poll`; instead of waiting, it remembers that it would have waited."""
        self._faults.interrupt("poll")
        if not self._faults.reachable():
            self._faults.waited(timeout_s)
            return []
        records: list[Record] = []
        for partition in list(self._positions):
            if partition not in self._paused and len(records) < limit:
                try:
                    records.extend(self._fetch(partition, limit - len(records)))
                except GapError:
                    if records:
                        break  # the next call tells it, for the partitions that were served come after this one
                    raise
        if records:
            self._waited_s = 0.0
        else:
            self._waited_s += timeout_s
            self._faults.waited(timeout_s)
        return records

    def _fetch(self, partition: Partition, limit: int) -> list[Record]:
        log, position = self._broker.log(partition), self._positions[partition]
        if not log.low <= position <= log.high:
            raise GapError(
                f"{partition.topic}[{partition.number}]: position {position} is outside {log.low}..{log.high}",
                hint="a store is rebuilt from a snapshot; nothing was read",
            )
        end = min(log.stable, self._faults.visible_end(log, position, self._waited_s))
        records = list(islice(log.committed(position, end), limit))
        if len(records) == limit:
            end = records[-1].offset + 1
        self._positions[partition] = max(position, end)
        # Served last next time, so that a full partition starves nobody.
        self._positions[partition] = self._positions.pop(partition)
        return records

    def position(self, partition: Partition) -> int:
        """See `log.Reader.position`."""
        return self._positions[partition]

    def pause(self, partitions: Iterable[Partition]) -> None:
        """See `log.Reader.pause`."""
        self._paused.update(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """See `log.Reader.resume`."""
        self._paused.difference_update(partitions)

    def close(self) -> None:
        """See `log.Reader.close`."""
        self._positions = {}


class MemoryWriter:
    """Implements `log.Writer`: idempotent, so a record is in the log once or not at all, in the order sent."""

    def __init__(self, broker: MemoryBroker, faults: Faults, queue_bytes: int) -> None:
        self._broker = broker
        self._faults = faults
        self._queue_bytes = queue_bytes
        self._queued_bytes = 0
        self._queue: deque[tuple[float, Output, Delivered | None]] = deque()

    def send(self, output: Output, delivered: Delivered | None = None) -> None:
        """See `log.Writer.send`."""
        size = _size(output)
        if self._queue and self._queued_bytes + size > self._queue_bytes:
            raise QueueFull(f"publish queue is full: {self._queued_bytes} of {self._queue_bytes} bytes wait")
        self._queued_bytes += size
        self._queue.append((self._broker.clock(), output, delivered))

    def poll(self, timeout_s: float = 0.0) -> None:
        """See `log.Writer.poll`."""
        self._faults.interrupt("deliver")
        if not self._faults.held_back():
            self._drain()
        if self._queue:
            self._faults.waited(timeout_s)

    def flush(self, timeout_s: float) -> int:
        """See `log.Writer.flush`."""
        self._faults.interrupt("deliver")
        self._drain()
        if self._queue:
            self._faults.waited(timeout_s)
        return len(self._queue)

    def purge(self) -> None:
        """See `log.Writer.purge`."""
        queue, self._queue, self._queued_bytes = self._queue, deque(), 0
        for _, output, delivered in queue:
            if delivered is not None:
                delivered(None, Purged(f"{output.partition}: dropped before it was sent"))

    def close(self) -> None:
        """See `log.Writer.close`."""
        self._drain()

    def _drain(self) -> None:
        while self._queue:
            since_s, output, delivered = self._queue[0]
            overdue = self._broker.clock() - since_s >= DELIVERY_TIMEOUT_S
            if not self._faults.reachable() and not overdue:
                return
            self._queue.popleft()
            self._queued_bytes -= _size(output)
            offset, error = self._deliver(output)
            if delivered is not None:
                delivered(offset, error)

    def _deliver(self, output: Output) -> tuple[int | None, Exception | None]:
        if not self._faults.reachable():
            return None, PublishUncertain(f"{output.partition} not delivered within {DELIVERY_TIMEOUT_S} s")
        try:
            self._broker.check(output)
        except Exception as error:  # noqa: BLE001 - whatever the broker refuses goes to the sender's callback
            return None, error
        fate = self._faults.delivery()
        if fate is Fate.REFUSED:
            return None, PublishUncertain(f"{output.partition}: no answer in time")
        offset = self._broker.append(output)
        if fate is Fate.REPLY_LOST:
            return None, PublishUncertain(f"{output.partition}: no answer in time")
        return offset, None


class MemoryTransactionalWriter:
    """Implements `log.TransactionalWriter`."""

    def __init__(self, broker: MemoryBroker, faults: Faults, identity: str) -> None:
        self._broker = broker
        self._faults = faults
        self._identity = identity
        faults.require_broker()
        self._epoch = broker.take_identity(identity)
        self._lost = False
        self.wire_bytes = 0

    def transact(self, outputs: Sequence[Output], timeout_s: float = 10.0) -> list[int]:
        """See `log.TransactionalWriter.transact`."""
        self._faults.interrupt("begin")
        if self._lost:
            raise CommitUncertain(f"{self._identity}: an earlier commit has an unknown fate", hint="make a new writer")
        if self._broker.is_fenced(self._identity, self._epoch):
            raise Fenced(f"{self._identity} was taken over by another process")
        if not self._faults.reachable():
            raise TransactionAborted(f"{self._identity}: no broker answers within {timeout_s} s; nothing was written")
        for output in outputs:
            self._check(output)
        if not outputs:
            return []
        return self._commit(outputs, self._faults.transaction())

    def _check(self, output: Output) -> None:
        try:
            self._broker.check(output)
        except TransactionAborted as error:
            raise TransactionAborted(f"{self._identity}: {error.message}", hint=error.hint) from error

    def _commit(self, outputs: Sequence[Output], fate: Fate) -> list[int]:
        transaction, offsets = self._broker.begin(self._identity, outputs)
        self._faults.interrupt("in transaction")
        if fate is Fate.REFUSED:
            self._broker.end(transaction, commit=False)
            raise TransactionAborted(f"{self._identity}: aborted; nothing was written")
        self.wire_bytes += sum(map(_size, outputs))
        transaction.commit_sent = True
        self._lost = fate in (Fate.HANGING, Fate.REPLY_LOST)
        if fate is not Fate.HANGING:
            self._faults.interrupt("commit sent")
            self._broker.end(transaction, commit=True, marker_delay_s=self._faults.marker_delay_s())
            self._faults.interrupt("committed")
        if self._lost:
            raise CommitUncertain(f"{self._identity}: no answer to the commit", hint="make a new writer and read back")
        return offsets

    def close(self) -> None:
        """See `log.TransactionalWriter.close`."""
        self._lost = True


class MemoryCluster:
    """Implements `log.Cluster`.

    Args:
        broker: what all processes share.
        faults: what stands between this process and the broker.
    """

    def __init__(self, broker: MemoryBroker, faults: Faults | None = None) -> None:
        self.broker = broker
        self._faults = faults or Faults()

    def reader(self, *, idle_ms: int = 100) -> MemoryReader:
        """See `log.Cluster.reader`; nothing is held here."""
        del idle_ms
        return MemoryReader(self.broker, self._faults)

    def writer(
        self, *, linger_ms: float = 0.0, queue_bytes: int = 64 * 1024 * 1024, batch_bytes: int = 1_000_000
    ) -> MemoryWriter:
        """See `log.Cluster.writer`; how long records linger is up to the faults."""
        del linger_ms, batch_bytes
        return MemoryWriter(self.broker, self._faults, queue_bytes)

    def transactional_writer(self, transactional_id: str, *, thin_link: bool = False) -> MemoryTransactionalWriter:
        """See `log.Cluster.transactional_writer`; nothing is compressed here, and always counted."""
        del thin_link
        return MemoryTransactionalWriter(self.broker, self._faults, transactional_id)

    def group(self, name: str) -> MemoryGroup:
        """See `log.Cluster.group`."""
        return MemoryGroup(self.broker, self._faults, name)

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        """See `log.Cluster.bounds`."""
        self._faults.require_broker()
        logs = [self.broker.log(partition) for partition in partitions]
        return {log.partition: Bounds(log.low, log.stable) for log in logs}

    def topics(self) -> dict[str, int]:
        """See `log.Cluster.topics`."""
        self._faults.require_broker()
        return self.broker.partition_counts()

    def topic_settings(self, topic: str) -> dict[str, str]:
        """See `log.Cluster.topic_settings`."""
        self._faults.require_broker()
        return self.broker.settings(topic)

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """See `log.Cluster.create_topics`."""
        self._faults.require_broker()
        self.broker.create(specs)

    def delete_topics(self, names: Iterable[str]) -> None:
        """See `log.Cluster.delete_topics`."""
        self._faults.require_broker()
        self.broker.delete(names)

    def close(self) -> None:
        """See `log.Cluster.close`."""


def _size(output: Output) -> int:
    return len(output.value or b"") + len(output.key or b"")
