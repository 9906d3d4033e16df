"""What a model's rows must be, recomputed from its source log alone: the independent side of the demo's check.

Only the record format is shared with the data path: exact sums with `numpy.add.at`, and the rules of DESIGN for voids,
generations and denied trainers, applied record by record in the order of each partition.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import Barrier, EpochRange, is_void
from ekko.schemas.errors import FormatError
from ekko.streams.log import Record

COMPACT_ROWS = 200_000

Keys = NDArray[np.uint64]
Rows = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Published:
    """Deltas of one trainer that stand in the log: rows, blocks, and the sum of all their values modulo 2**64."""

    rows: int = 0
    blocks: int = 0
    total: int = 0

    def __add__(self, other: "Published") -> "Published":
        total = (self.total + other.total) % 2**64
        return Published(self.rows + other.rows, self.blocks + other.blocks, total)


@dataclass(slots=True)
class _Shard:
    """Where the reading of one partition stands."""

    epoch: int = 0
    generation: int = 0
    denied: frozenset[str] = frozenset()


@dataclass(slots=True)
class SourceSums:
    """Sums of deltas by table and effective epoch, from records fed in offset order of each partition.

    Attributes:
        incarnation: the model's; blocks of another are not its.
        published: what each trainer published, whether it counts or not.
        barrier: the barrier that opened the highest epoch seen.
        skipped: blocks that must not be applied, by reason.
    """

    incarnation: int
    codec: Codec = field(default_factory=Codec)
    published: dict[str, Published] = field(default_factory=dict)
    barrier: Barrier | None = None
    skipped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _shards: dict[int, _Shard] = field(default_factory=lambda: defaultdict(_Shard))
    _parts: dict[tuple[str, int], list[tuple[Keys, Rows]]] = field(default_factory=lambda: defaultdict(list))
    _waiting: int = 0

    def feed(self, records: Iterable[Record]) -> None:
        """Take in records of the source topic."""
        for record in records:
            try:
                message = self.codec.decode(record.value)
            except FormatError:
                self.skipped["bad_format"] += 1
                continue
            if isinstance(message, Barrier):
                self._open_epoch(record.partition.number, message)
            elif isinstance(message, DeltaBlock):
                self._add(record.partition.number, message)
        if self._waiting > COMPACT_ROWS:
            self._compact()

    def epochs(self) -> dict[int, int]:
        """The epoch in which each shard read so far is."""
        return {shard: at.epoch for shard, at in self._shards.items()}

    def voids(self) -> tuple[EpochRange, ...]:
        """Every void known at the end of the log."""
        return self.barrier.voids if self.barrier is not None else ()

    def rows(self, table: str, before_epoch: int | None = None) -> tuple[Keys, Rows]:
        """Keys ``uint64[N]`` and rows ``int32[N, dim]`` of a table, all-zero rows left out.

        ``before_epoch`` gives the rows as of that model state: only deltas of earlier epochs count.
        """
        self._compact()
        parts = [
            part
            for (name, epoch), sums in self._parts.items()
            if name == table and not is_void(epoch, self.voids()) and (before_epoch is None or epoch < before_epoch)
            for part in sums
        ]
        if not parts:
            return np.empty(0, np.uint64), np.empty((0, 1), np.int32)
        keys, rows = _sum(parts)
        present = rows.any(axis=1)
        return keys[present], rows[present]

    def _open_epoch(self, shard: int, barrier: Barrier) -> None:
        self._shards[shard] = _Shard(barrier.epoch, barrier.generation, frozenset(barrier.denied))
        if self.barrier is None or barrier.epoch > self.barrier.epoch:
            self.barrier = barrier

    def _add(self, shard: int, block: DeltaBlock) -> None:
        if not len(block.keys) and block.trainer_position is None:
            return  # a mark that a publisher sets when it looks for its last position
        sent = Published(len(block.keys), 1, int(block.deltas.sum(dtype=np.int64)) % 2**64)
        self.published[block.trainer] = self.published.get(block.trainer, Published()) + sent
        at = self._shards[shard]
        if block.incarnation != self.incarnation:
            self.skipped["other_incarnation"] += 1
        elif block.purpose is not Purpose.RETRACT and block.generation < at.generation:
            self.skipped["old_generation"] += 1
        elif block.purpose is Purpose.TRAIN and block.trainer in at.denied:
            self.skipped["denied"] += 1
        elif len(block.keys):
            epoch = at.epoch if block.effective is None else block.effective
            self._parts[block.table, epoch].append((block.keys, block.deltas))
            self._waiting += len(block.keys)

    def _compact(self) -> None:
        for parts in self._parts.values():
            if len(parts) > 1:
                parts[:] = [_sum(parts)]
        self._waiting = 0


def _sum(parts: list[tuple[Keys, Rows]]) -> tuple[Keys, Rows]:
    """Distinct keys and the wrap-around int32 sums of their rows."""
    keys, index = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
    rows = np.concatenate([rows for _, rows in parts])
    sums = np.zeros((len(keys), rows.shape[1]), np.int32)
    np.add.at(sums, index, rows)
    return keys, sums
