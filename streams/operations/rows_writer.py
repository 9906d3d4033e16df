"""Publishing rows that an operation brings from elsewhere, chunk by chunk, each in one transaction.

What is published is known chunk by chunk only, so memory is bounded by a chunk. Making a writer fences every other
operation on the model.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.limits import MAX_BLOCK_BYTES
from ekko.schemas.quantize import Int32s
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.manager.barriers import beginning
from ekko.streams.manager.history import read_control
from ekko.streams.operations.written import Written
from ekko.streams.publisher.batches import BATCH_OVERHEAD, BlockLimits, ShardedRows, cut


class Target(NamedTuple):
    """The model, on the central cluster, and the catalogue as read by this process."""

    cluster: Cluster
    catalogue: SharedCatalogue
    model: ModelDeclaration


class RowsWriter:
    """One attempt at an operation on one table. Close it.

    Args:
        at_us: when, microseconds since 1970.

    Attributes:
        barrier: the last one as of the attempt's beginning, by the control topic (one more may have been committed).
        identity: the operation's; its blocks carry it as their trainer, and with the chunk's number as their operation.
            Set by those who know it.
    """

    identity: str

    def __init__(self, target: Target, table: TableDeclaration, purpose: Purpose, at_us: int) -> None:
        cluster, model = target.cluster, target.model
        assert model.incarnation is not None
        self._cluster, self._catalogue, self._model, self._table = cluster, target.catalogue, model, table
        self._purpose, self._at_us = purpose, at_us
        self._writer = cluster.transactional_writer(topics.operation_transactional_id(model.name, model.incarnation))
        try:
            self.barrier = self._read_barrier()
            settings = cluster.topic_settings(topics.deltas(model.name))
        except BaseException:
            self._writer.close()
            raise
        limit = min(int(settings["max.message.bytes"]) - BATCH_OVERHEAD, MAX_BLOCK_BYTES)
        self._limits = BlockLimits(model.max_rows_a_block, limit)
        self._written = Written(self._writer, model)

    def _read_barrier(self) -> Barrier:
        assert self._model.incarnation is not None
        return read_control(self._cluster, self._catalogue, self._model) or beginning(self._model.incarnation)

    def publish(self, number: int, keys: UInt64s, deltas: Int32s, entry: AuditEntry | None = None) -> int:
        """Publish chunk `number`; the rows that were not zero.

        Args:
            keys: uint64[N], distinct. deltas: int32[N, dim]. entry: for the audit trail, with the last chunk.

        Raises:
            Fenced: another operation on the model was started.
            CommitUncertain, TransactionAborted: make another attempt.
        """
        blocks = list(self._blocks(number, keys, deltas))
        topic = topics.deltas(self._model.name)
        outputs = [Output(Partition(topic, block.shard), encode(block)) for block in blocks]
        if entry is not None:
            outputs.append(Output(Partition(topics.audit(self._model.name), 0), encode(entry)))
        if outputs:
            self._written.transact(outputs)
        return sum(len(block.keys) for block in blocks)

    def _blocks(self, number: int, keys: UInt64s, deltas: Int32s) -> Iterator[DeltaBlock]:
        assert self._model.incarnation is not None
        is_row = deltas.any(axis=1)
        keys, deltas = keys[is_row], deltas[is_row]
        shards = shard_of(keys, self._model.shards)
        order = np.lexsort((keys, shards))
        starts = np.searchsorted(shards[order], np.arange(self._model.shards + 1))
        template = DeltaBlock(
            incarnation=self._model.incarnation,
            table=self._table.name,
            shard=0,
            keys=keys[:0],
            deltas=deltas[:0],
            purpose=self._purpose,
            trainer=self.identity,
            generation=self.barrier.generation,
            catalogue=self._catalogue.end,
            operation=f"{self.identity}/{number}",
            published_us=self._at_us,
        )
        return cut(ShardedRows(self._table, keys[order], deltas[order], None, starts), template, self._limits)

    def check_generation(self, since: int | None = None) -> None:
        """Return if all that this attempt has published counts: the model was not rolled back since it began.

        Args:
            since: the generation in which the first attempt began, where there was an earlier one.

        Raises:
            RolledBack: it was; what came later was rejected.
            NotReady: that cannot be told yet.
        """
        generation = self.barrier.generation if since is None else since
        self._written.check(self._cluster, self._catalogue, generation, self.identity)

    def close(self) -> None:
        """Release the connection."""
        self._writer.close()
