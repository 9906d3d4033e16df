"""Importing rows into a table, chunk by chunk, each in one transaction; an attempt goes on after the last one.

The blocks name their import and chunk, so the log tells what earlier attempts have brought in.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, is_void
from ekko.schemas.errors import ConfigurationError, RolledBack
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.limits import MAX_BLOCK_BYTES
from ekko.schemas.quantize import Int32s
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.manager.barriers import beginning
from ekko.streams.manager.history import read_control
from ekko.streams.operations.accepted import Accepted, read_accepted
from ekko.streams.publisher.batches import BATCH_OVERHEAD, BlockLimits, ShardedRows, cut


class Target(NamedTuple):
    """The model, on the central cluster, and the catalogue as read by this process."""

    cluster: Cluster
    catalogue: SharedCatalogue
    model: ModelDeclaration


class RowsImport:
    """One attempt at an import; making it fences every other operation on the model. Close it.

    Args:
        identity: the same for every attempt, another one for other contents; its blocks carry it as their trainer.
        at_us: when, microseconds since 1970.
    """

    def __init__(self, target: Target, table: TableDeclaration, identity: str, at_us: int) -> None:
        cluster, model = target.cluster, target.model
        assert model.incarnation is not None
        self._cluster, self._catalogue, self._model, self._table = cluster, target.catalogue, model, table
        self._identity, self._at_us = identity, at_us
        self._writer = cluster.transactional_writer(topics.operation_transactional_id(model.name, model.incarnation))
        try:
            self.barrier = self._read_barrier()
            settings = cluster.topic_settings(topics.deltas(model.name))
        except BaseException:
            self._writer.close()
            raise
        limit = min(int(settings["max.message.bytes"]) - BATCH_OVERHEAD, MAX_BLOCK_BYTES)
        self._limits = BlockLimits(model.max_rows_a_block, limit)

    def _read_barrier(self) -> Barrier:
        assert self._model.incarnation is not None
        return read_control(self._cluster, self._catalogue, self._model) or beginning(self._model.incarnation)

    def chunks_in_log(self) -> frozenset[int]:
        """Chunks of this import that count already, when nobody else has put anything into the table.

        Raises:
            ConfigurationError: somebody has.
            GapError: retention has passed the beginning of the log, so nobody can tell.
            NotReady: blocks at the end of the log wait for a barrier to be decided about.
        """
        found: set[int] = set()
        others: set[str] = set()

        def take(accepted: Accepted) -> None:
            block = accepted.block
            if block.table != self._table.name or is_void(accepted.effective, self.barrier.voids):
                return
            if block.purpose is Purpose.IMPORT and block.trainer == self._identity:
                found.add(int((block.operation or "").rpartition("/")[2]))
            else:
                others.add(block.trainer)

        read_accepted(self._cluster, self._catalogue, self._model, None, take)
        if others:
            raise ConfigurationError(
                f"table {self._table.name} of model {self._model.name} is not empty: {len(others)} trainer(s) or "
                f"imports have published into it, {min(others)!r} among them",
                hint="--replace --region R --store HOST:PORT sets the rows of the file, whatever they are now",
            )
        return frozenset(found)

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
            self._writer.transact(outputs)
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
            purpose=Purpose.IMPORT,
            trainer=self._identity,
            generation=self.barrier.generation,
            catalogue=self._catalogue.end,
            operation=f"{self._identity}/{number}",
            published_us=self._at_us,
        )
        return cut(ShardedRows(self._table, keys[order], deltas[order], None, starts), template, self._limits)

    def check_generation(self) -> None:
        """Raises RolledBack if the model was rolled back since this attempt began: what came later was rejected."""
        if self._read_barrier().generation != self.barrier.generation:
            raise RolledBack(
                f"model {self._model.name} was rolled back while {self._identity} ran",
                hint="look at `ekko states`, then run it again if it is still wanted",
            )

    def close(self) -> None:
        """Release the connection."""
        self._writer.close()
