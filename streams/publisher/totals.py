"""What a publisher knows to be in the log, and what it tells Prometheus."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from prometheus_client import Counter, Gauge, Histogram

from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import encode
from ekko.streams.log import Output, Partition
from ekko.streams.publisher.batches import wrapped_sum

ROWS = Counter("ekko_publisher_rows", "Rows by what became of them.", ["model", "table", "fate"])
BYTES = Counter("ekko_publisher_bytes", "Bytes of blocks in the log, before compression.", ["model", "table"])
REFUSED = Counter("ekko_publisher_refused_batches", "Calls of publish that were refused.", ["model", "reason"])
QUEUE = Gauge("ekko_publisher_queue_bytes", "Bytes that wait for an acknowledgement.", ["model"])
GENERATION = Gauge("ekko_publisher_generation", "The rollback count stamped on blocks.", ["model"])
SECONDS = Histogram(
    "ekko_publisher_acknowledge_seconds",
    "From entry into publish to the broker's acknowledgement.",
    ["model"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)


@dataclass(frozen=True, slots=True)
class PublishReceipt:
    """What one call of publish sent: distinct rows that changed, and the blocks that carry them.

    Attributes:
        not_admitted: rows left out because their keys have not been touched often enough, see `Admission`.
    """

    rows: int
    blocks: int
    not_admitted: int = 0


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Blocks that the broker has acknowledged, so that nothing loses them any more.

    Attributes:
        sums: table -> sum of all delta values modulo 2**64 (`publishing.wrapped_sum`); an independent reader of the
            source log must come to the same numbers.
    """

    rows: int = 0
    blocks: int = 0
    sums: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The sum over all tables modulo 2**64."""
        return sum(self.sums.values()) % 2**64


@dataclass(frozen=True, slots=True)
class SealedBlock:
    """An encoded block on its way, and what is counted when it has arrived; `entered_s` is of the monotonic clock."""

    output: Output = field(repr=False)
    table: str
    rows: int
    total: int
    entered_s: float

    @property
    def size(self) -> int:
        """Bytes, before compression."""
        return len(self.output.value or b"")


def seal(block: DeltaBlock, topic: str, entered_s: float) -> SealedBlock:
    """Encode a block for its partition of `topic`."""
    output = Output(Partition(topic, block.shard), encode(block))
    return SealedBlock(output, block.table, len(block.keys), wrapped_sum(block.deltas), entered_s)


class Ledger:
    """Counts what became of sealed blocks; thread-safe."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._acknowledged = Acknowledged()

    @property
    def acknowledged(self) -> Acknowledged:
        """The totals now."""
        return self._acknowledged

    def book(self, block: SealedBlock, now_s: float) -> None:
        """Count a block as acknowledged."""
        with self._lock:
            before = self._acknowledged
            total = (before.sums.get(block.table, 0) + block.total) % 2**64
            sums = MappingProxyType({**before.sums, block.table: total})
            self._acknowledged = Acknowledged(before.rows + block.rows, before.blocks + 1, sums)
        ROWS.labels(self._model, block.table, "acknowledged").inc(block.rows)
        BYTES.labels(self._model, block.table).inc(block.size)
        SECONDS.labels(self._model).observe(now_s - block.entered_s)

    def book_loss(self, block: SealedBlock, fate: str) -> None:
        """Count a block that is not, or perhaps not, in the log."""
        ROWS.labels(self._model, block.table, fate).inc(block.rows)

    def book_not_admitted(self, table: str, rows: int) -> None:
        """Count rows that were left out because their keys are not admitted yet."""
        if rows:
            ROWS.labels(self._model, table, "not_admitted").inc(rows)

    def book_queue(self, size: int) -> None:
        """Tell how many bytes wait."""
        QUEUE.labels(self._model).set(size)
