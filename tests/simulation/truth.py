"""What every row must be, recomputed from the raw source log by plain rules of its own.

Of the product it uses only the codec and the key hash: they are formats and have tests of their own.
"""

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import FormatError
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.quantize import Int32s
from ekko.streams.log import Partition, Record
from ekko.streams.memory.broker import MemoryBroker

_CODEC = Codec()

Origin = tuple[int, int]
"""(shard, source offset)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A block that counts, unless its effective epoch is void."""

    origin: Origin
    arrival: int
    effective: int
    block: DeltaBlock = field(repr=False)


def committed(broker: MemoryBroker, partition: Partition) -> list[Record]:
    """Every committed record of a partition, retention or not."""
    log = broker.log(partition)
    return list(log.committed(0, log.stable))


@lru_cache(maxsize=20_000)
def decoded(value: bytes | None) -> object:
    """The message in a record, or the FormatError that says why there is none; records never change."""
    try:
        message: object = _CODEC.decode(value)
    except FormatError as error:
        return error
    return message


class Truth:
    """The source log of one model, judged.

    Attributes:
        blocks: every delta block with its origin, accepted or not.
        accepted: blocks that count. rejected: origins of records that must be refused.
        barriers: by shard, (offset, barrier) in order.
        voids: all voids of the model.
        epoch: the last epoch opened; last_barrier: what opened it.
    """

    def __init__(self, broker: MemoryBroker, model: str) -> None:
        self._catalogue = [
            (record.offset, decoded(record.value)) for record in committed(broker, Partition(topics.CATALOGUE, 0))
        ]
        found = self._model_as_of(model, len(self._catalogue) + 10**6)
        assert found is not None, f"the catalogue holds no model {model}"
        self.model = found
        self.blocks: list[tuple[Origin, DeltaBlock]] = []
        self.accepted: list[Accepted] = []
        self.rejected: set[Origin] = set()
        self.undecided: set[Origin] = set()
        self.barriers: list[list[tuple[int, Barrier]]] = [[] for _ in range(self.model.shards)]
        for shard in range(self.model.shards):
            self._read(shard, committed(broker, Partition(topics.deltas(model), shard)))
        # A trainer's open transaction may hide a barrier in one partition that others show already.
        last = max((barriers[-1][1] for barriers in self.barriers if barriers), key=lambda b: b.epoch, default=None)
        self.voids: tuple[EpochRange, ...] = last.voids if last is not None else ()
        self.withdrawn: tuple[EpochRange, ...] = last.withdrawn if last is not None else ()
        self.epoch = last.epoch if last is not None else 0
        self.last_barrier = last if last is not None else Barrier(self.model.incarnation or 0, 0, 0, 0)

    def _model_as_of(self, name: str, end: int) -> ModelDeclaration | None:
        found: ModelDeclaration | None = None
        for offset, message in self._catalogue:
            if offset < end and isinstance(message, ModelDeclaration) and message.name == name:
                if found is None:
                    found = ModelDeclaration(
                        name, message.shards, message.shard_groups, message.tables, message.max_rows_a_block, offset
                    )
                else:
                    known = {table.name for table in found.tables}
                    tables = found.tables + tuple(table for table in message.tables if table.name not in known)
                    found = ModelDeclaration(
                        name, found.shards, found.shard_groups, tables, message.max_rows_a_block, found.incarnation
                    )
        return found

    def _read(self, shard: int, records: list[Record]) -> None:
        messages = [(record.offset, decoded(record.value)) for record in records]
        barriers = [(offset, message) for offset, message in messages if isinstance(message, Barrier)]
        assert [barrier.epoch for _, barrier in barriers] == list(range(1, len(barriers) + 1)), "barriers out of order"
        self.barriers[shard] = barriers
        opened = Barrier(self.model.incarnation or 0, 0, 0, (self.model.incarnation or 0) + 1)
        for offset, message in messages:
            if isinstance(message, Barrier):
                opened = message
            elif isinstance(message, DeltaBlock):
                self.blocks.append(((shard, offset), message))
                self._judge((shard, offset), message, opened, barriers)
            else:
                self.rejected.add((shard, offset))

    def _judge(self, origin: Origin, block: DeltaBlock, opened: Barrier, barriers: list[tuple[int, Barrier]]) -> None:
        if self._is_refused(origin, block, opened):
            self.rejected.add(origin)
            return
        if block.catalogue > opened.catalogue_end:
            # The barrier after next was written by somebody who had read all that an honest publisher can have read.
            bound = barriers[opened.epoch + 1][1].catalogue_end if len(barriers) > opened.epoch + 1 else None
            if bound is not None and block.catalogue > bound:
                self.rejected.add(origin)
                return
            if bound is None and block.catalogue > len(self._catalogue) + 10**3:
                self.undecided.add(origin)
                return
        if self._does_not_fit(block, opened):
            self.rejected.add(origin)
            return
        effective = opened.epoch if block.effective is None else block.effective
        self.accepted.append(Accepted(origin, opened.epoch, effective, block))

    def _is_refused(self, origin: Origin, block: DeltaBlock, opened: Barrier) -> bool:
        retracts = block.purpose is Purpose.RETRACT
        return (
            block.incarnation != self.model.incarnation
            or block.shard != origin[0]
            or (block.purpose is Purpose.TRAIN and block.trainer in opened.denied)
            or (block.generation < opened.generation and not retracts)
            or block.generation > opened.generation
            or (block.effective is not None and not (retracts and 0 <= block.effective <= opened.epoch))
        )

    def _does_not_fit(self, block: DeltaBlock, opened: Barrier) -> bool:
        model = self._model_as_of(self.model.name, max(block.catalogue, opened.catalogue_end))
        if model is None or block.table not in {table.name for table in model.tables}:
            return True
        return (
            block.deltas.shape[1] != model.table(block.table).dim
            or len(block.keys) > model.max_rows_a_block
            or bool((shard_of(block.keys, model.shards) != block.shard).any())
        )

    def knowing(self, voids: tuple[EpochRange, ...]) -> "Truth":
        """The truth of somebody who knows these voids and no others."""
        other = copy(self)
        other.voids = voids
        return other

    @cached_property
    def keys(self) -> dict[str, UInt64s]:
        """Every key ever accepted, by table, rising."""
        found: dict[str, UInt64s] = {}
        for table in self.model.tables:
            mine = [entry.block.keys for entry in self.accepted if entry.block.table == table.name]
            found[table.name] = np.unique(np.concatenate(mine)) if mine else np.empty(0, np.uint64)
        return found

    @cached_property
    def _by_epoch(self) -> dict[str, Int32s]:
        """Sums of accepted deltas by table: int32[epochs, keys, dim]."""
        sums = {
            table.name: np.zeros((self.epoch + 1, len(self.keys[table.name]), table.dim), np.int32)
            for table in self.model.tables
        }
        for entry in self.accepted:
            block = entry.block
            places = np.searchsorted(self.keys[block.table], block.keys)
            sums[block.table][entry.effective, places] += block.deltas
        return sums

    def label(self, epoch: int) -> int:
        """The oldest epoch with which `epoch` is one by the states that are withdrawn in the end."""
        while epoch > 0 and any(epoch in run for run in self.withdrawn):
            epoch -= 1
        return epoch

    def is_void(self, epoch: int) -> bool:
        """Whether deltas of `epoch` count for nothing in the end."""
        return any(epoch in void for void in self.voids)

    def rows(self, table: str, *, before: int | None = None) -> Int32s:
        """Rows of `keys[table]` as a store that never saw a voided delta holds them: now, or at an epoch's start."""
        end = self.epoch + 1 if before is None else before
        epochs = [epoch for epoch in range(end) if not self.is_void(epoch)]
        rows: Int32s = self._by_epoch[table][epochs].sum(axis=0, dtype=np.int32)
        return rows
