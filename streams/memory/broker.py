"""A Kafka broker's log in memory: offsets with transaction markers, last stable offset, fencing, retention.

It is what simulated processes share, and it outlives them; `streams.memory.log` gives each its connection to it.
What retention removed is kept, so that a checker can still read the whole truth; readers cannot.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ekko.schemas.errors import TopicMissing, TransactionAborted
from ekko.streams.log import Output, Partition, Record, TopicSpec

TRANSACTION_TIMEOUT_S = 2.0
RECORD_OVERHEAD = 80
"""Bytes that Kafka adds to a record when it compares its batch with `max.message.bytes`, rounded up."""

DEFAULT_SETTINGS = {"max.message.bytes": "1048588", "cleanup.policy": "delete", "retention.ms": "604800000"}


class Outcome(Enum):
    """What became of a transaction."""

    OPEN = auto()
    COMMITTED = auto()
    ABORTED = auto()


@dataclass(slots=True, eq=False)
class Transaction:
    """Records of one writer that become visible together or never.

    Attributes:
        deadline_s: when the broker ends it, if nobody else does.
        commit_sent: the writer asked for the commit and heard nothing; whoever ends the transaction decides.
        marked_s: when the markers of a transaction that has ended reach the partitions.
    """

    identity: str
    deadline_s: float
    marked_s: float = 0.0
    outcome: Outcome = Outcome.OPEN
    commit_sent: bool = False
    logs: list["PartitionLog"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as appended; `transaction` is None for plain writers."""

    key: bytes | None
    value: bytes | None = field(repr=False)
    timestamp_ms: int
    transaction: Transaction | None


class PartitionLog:
    """One partition: entries and markers (None) by offset, from `low` on visible to readers."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.entries: list[Entry | None] = []
        self.low = 0
        self._open: dict[Transaction, int] = {}

    @property
    def high(self) -> int:
        """Next offset to be written."""
        return len(self.entries)

    @property
    def stable(self) -> int:
        """Last stable offset: nothing from it on is handed to read-committed readers."""
        return min(self._open.values(), default=self.high)

    def append(self, entry: Entry) -> int:
        """Append and return the offset."""
        offset = self.high
        self.entries.append(entry)
        if entry.transaction is not None and entry.transaction not in self._open:
            self._open[entry.transaction] = offset
            entry.transaction.logs.append(self)
        return offset

    def mark(self, transaction: Transaction) -> None:
        """Append the transaction's commit or abort marker."""
        del self._open[transaction]
        self.entries.append(None)

    def committed(self, start: int, end: int) -> Iterator[Record]:
        """Committed records from `start` to before `end`, which is at most the last stable offset."""
        for offset in range(start, end):
            entry = self.entries[offset]
            if entry is None or (entry.transaction is not None and entry.transaction.outcome is not Outcome.COMMITTED):
                continue
            yield Record(self.partition, offset, entry.key, entry.value, entry.timestamp_ms, leader_epoch=0)


@dataclass(slots=True)
class Topic:
    """A topic's partitions and settings."""

    logs: list[PartitionLog]
    settings: dict[str, str]


class MemoryBroker:
    """Topics, transactional identities and open transactions of one cluster.

    Args:
        clock: seconds; virtual in simulations.
        decide: whether a transaction of unknown fate turns out committed, asked when it is ended by somebody else.
    """

    def __init__(self, clock: Callable[[], float], decide: Callable[[], bool] = lambda: False) -> None:
        self.clock = clock
        self._decide = decide
        self._topics: dict[str, Topic] = {}
        self._newest: dict[str, int] = defaultdict(int)
        self._last: dict[str, Transaction] = {}  # by identity, until its markers are written
        self.committed: dict[str, dict[Partition, tuple[int, str]]] = {}
        """By consumer group: offsets with their metadata."""
        self.members: dict[str, set[int]] = {}
        """By consumer group: who is in it."""

    # -- topics

    def create(self, specs: Iterable[TopicSpec]) -> None:
        """Create what does not exist yet."""
        for spec in specs:
            if spec.name not in self._topics:
                logs = [PartitionLog(Partition(spec.name, number)) for number in range(spec.partitions)]
                self._topics[spec.name] = Topic(logs, DEFAULT_SETTINGS | dict(spec.settings))

    def delete(self, names: Iterable[str]) -> None:
        """Delete what exists."""
        for name in names:
            self._topics.pop(name, None)

    def partition_counts(self) -> dict[str, int]:
        """Every topic's partition count."""
        return {name: len(topic.logs) for name, topic in self._topics.items()}

    def settings(self, topic: str) -> dict[str, str]:
        """A topic's settings in force; raises TopicMissing."""
        return dict(self._topic(topic).settings)

    def log(self, partition: Partition) -> PartitionLog:
        """A partition's log, with everything that is due by now; raises TopicMissing."""
        self._pass_time()
        logs = self._topic(partition.topic).logs
        if not 0 <= partition.number < len(logs):
            raise TopicMissing(f"topic {partition.topic} has no partition {partition.number}, only {len(logs)}")
        return logs[partition.number]

    def trim(self, partition: Partition, offset: int) -> None:
        """Retention passes by: records before `offset` are gone for readers."""
        log = self.log(partition)
        log.low = max(log.low, min(offset, log.stable))

    def _topic(self, name: str) -> Topic:
        if name not in self._topics:
            raise TopicMissing(f"topic {name} does not exist", hint="create it with `ekko model apply FILE`")
        return self._topics[name]

    # -- writing

    def check(self, output: Output) -> None:
        """Refuse what Kafka refuses.

        Raises:
            TopicMissing: no such topic or partition.
            TransactionAborted: larger than the topic's `max.message.bytes`.
        """
        self.log(output.partition)
        size = len(output.value or b"") + len(output.key or b"") + RECORD_OVERHEAD
        limit = int(self._topic(output.partition.topic).settings["max.message.bytes"])
        if size > limit:
            raise TransactionAborted(f"a record of {size} bytes exceeds the limit of {output.partition.topic}, {limit}")

    def append(self, output: Output, transaction: Transaction | None = None) -> int:
        """Append one record and return its offset."""
        entry = Entry(output.key, output.value, int(self.clock() * 1000), transaction)
        return self.log(output.partition).append(entry)

    def take_identity(self, identity: str) -> int:
        """Fence every older writer of `identity`, end its open transaction, and return the new writer's epoch."""
        self._pass_time()
        self._newest[identity] += 1
        last = self._last.get(identity)
        if last is not None and last.outcome is Outcome.OPEN:
            self.end(last, commit=last.commit_sent and self._decide())
        self._complete(identity)
        return self._newest[identity]

    def is_fenced(self, identity: str, epoch: int) -> bool:
        """Whether a writer that took `identity` at `epoch` has been fenced (by a newer one, or by its time-out)."""
        self._pass_time()
        return self._newest[identity] != epoch

    def begin(self, identity: str, outputs: Sequence[Output]) -> tuple[Transaction, list[int]]:
        """Open a transaction and append `outputs`; returns it and their offsets."""
        self._complete(identity)
        transaction = Transaction(identity, self.clock() + TRANSACTION_TIMEOUT_S)
        self._last[identity] = transaction
        return transaction, [self.append(output, transaction) for output in outputs]

    def end(self, transaction: Transaction, *, commit: bool, marker_delay_s: float = 0.0) -> None:
        """Decide for commit or abort. As in Kafka the markers may be written a little later than the answer."""
        transaction.outcome = Outcome.COMMITTED if commit else Outcome.ABORTED
        transaction.marked_s = self.clock() + marker_delay_s
        self._pass_time()

    def _complete(self, identity: str) -> None:
        """Write the markers still due of the identity's last transaction: its next one cannot begin before."""
        transaction = self._last.pop(identity, None)
        if transaction is not None:
            for log in transaction.logs:
                log.mark(transaction)

    def _pass_time(self) -> None:
        now = self.clock()
        for identity, transaction in list(self._last.items()):
            if transaction.outcome is Outcome.OPEN and transaction.deadline_s <= now:
                # As in Kafka, the time-out raises the epoch: the writer that hung finds itself fenced.
                self._newest[identity] += 1
                transaction.outcome = (
                    Outcome.COMMITTED if transaction.commit_sent and self._decide() else Outcome.ABORTED
                )
            if transaction.outcome is not Outcome.OPEN and transaction.marked_s <= now:
                self._complete(identity)
