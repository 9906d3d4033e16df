"""Running an operation: one at a time a model, in short transactions, to be run again after any failure.

What is still to be published follows from the log alone: earlier attempts' blocks are in it, and count. So there is
nothing to remember between attempts, and a transaction of unknown fate is settled by fencing and reading again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, ModelState
from ekko.schemas.errors import CommitUncertain, TransactionAborted
from ekko.schemas.limits import MAX_BLOCK_BYTES
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.manager.barriers import beginning
from ekko.streams.manager.history import read_control
from ekko.streams.operations.accepted import Accepted, read_accepted
from ekko.streams.operations.marks import mark_ends
from ekko.streams.operations.parts import Part, Provenance, blocks
from ekko.streams.operations.written import Written
from ekko.streams.publisher.batches import BATCH_OVERHEAD, BlockLimits

_ATTEMPTS = 5
_CHUNK_BYTES = 4 * 1024 * 1024
"""Readers of the partitions touched wait for a transaction, so it must be short."""


class Collector(Protocol):
    """What an operation makes of the accepted blocks."""

    def take(self, accepted: Accepted) -> None:
        """Take an accepted block."""

    def parts(self, voids: tuple[EpochRange, ...]) -> Iterable[Part]:
        """What is to be published."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation asked for.

    Attributes:
        identity: what its blocks carry, e.g. "retract/trainer-7/12-40".
        start: state from which on the source is read; None: the beginning.
        collector: makes a fresh one for every attempt.
        entry: for the audit trail, written with the last blocks; its `at_us` is when the blocks were published.
    """

    purpose: Purpose
    identity: str
    start: ModelState | None
    collector: Callable[[], Collector]
    entry: AuditEntry


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has found (and, unless it was a rehearsal, published)."""

    rows: int
    blocks: int


class Operator:
    """Runs operations on one model.

    Args:
        cluster: the central one.
        catalogue: as read by this process.
    """

    def __init__(self, cluster: Cluster, catalogue: SharedCatalogue, model: ModelDeclaration) -> None:
        self._cluster, self._catalogue, self._model = cluster, catalogue, model
        self._whole: Outcome | None = None

    def rehearse(self, operation: Operation) -> Outcome:
        """What `run` would publish now; raises as `run`, and writes nothing."""
        return _total(self._find(operation, self._barrier(), None))

    def run(self, operation: Operation) -> Outcome:
        """Publish what is left to be published.

        Raises:
            GapError: retention has passed the start; nothing was written.
            NotReady: blocks at the end of the log wait for a barrier to be decided about, and nothing was written; or
                all was written, and whether the model was rolled back meanwhile cannot be told yet.
            Fenced: another operation on the model was started; what is missing is published by running this again.
            RolledBack: the model was rolled back meanwhile; run it again if it is still wanted.
            CommitUncertain: the broker failed again and again; run it again.
        """
        self._whole = None
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._attempt(operation)
            except (CommitUncertain, TransactionAborted):
                continue
        return self._attempt(operation)

    def _attempt(self, operation: Operation) -> Outcome:
        assert self._model.incarnation is not None
        writer = self._cluster.transactional_writer(
            topics.operation_transactional_id(self._model.name, self._model.incarnation)
        )
        try:
            barrier = self._barrier()
            self._catalogue.refresh()
            model = self._catalogue.model(self._model.name)
            ends = mark_ends(writer, model, self._provenance(operation, barrier))
            found = self._find(operation, barrier, ends)
            # A later attempt finds only what the ones before it did not write.
            outcome = self._whole = self._whole or _total(found)
            written = Written(writer, model)
            self._write(written, operation, found, outcome)
        finally:
            writer.close()
        written.check(self._cluster, self._catalogue, barrier.generation, operation.identity)
        return outcome

    def _barrier(self) -> Barrier:
        return read_control(self._cluster, self._catalogue, self._model) or beginning(self._model.incarnation or 0)

    def _provenance(self, operation: Operation, barrier: Barrier) -> Provenance:
        return Provenance(
            operation.purpose, operation.identity, barrier.generation, self._catalogue.end, operation.entry.at_us
        )

    def _find(self, operation: Operation, barrier: Barrier, ends: Sequence[int] | None) -> list[DeltaBlock]:
        collector = operation.collector()
        read_accepted(self._cluster, self._catalogue, self._model, operation.start, collector.take, ends=ends)
        model = self._catalogue.model(self._model.name)  # it may have gained a table that accepted blocks name
        provenance = self._provenance(operation, barrier)
        settings = self._cluster.topic_settings(topics.deltas(self._model.name))
        limit = min(int(settings["max.message.bytes"]) - BATCH_OVERHEAD, MAX_BLOCK_BYTES)
        limits = BlockLimits(model.max_rows_a_block, limit)
        return list(blocks(model, collector.parts(barrier.voids), provenance, limits))

    def _write(self, written: Written, operation: Operation, found: list[DeltaBlock], outcome: Outcome) -> None:
        chunks = list(_chunks(found))
        topic = topics.deltas(self._model.name)
        for number, chunk in enumerate(chunks, start=1):
            named = [replace(block, operation=f"{block.operation}/{number}") for block in chunk]
            outputs = [Output(Partition(topic, block.shard), encode(block)) for block in named]
            if number == len(chunks):
                details = operation.entry.details | {"rows": str(outcome.rows), "blocks": str(outcome.blocks)}
                entry = encode(replace(operation.entry, details=details))
                outputs.append(Output(Partition(topics.audit(self._model.name), 0), entry))
            written.transact(outputs)


def _total(found: list[DeltaBlock]) -> Outcome:
    return Outcome(sum(len(block.keys) for block in found), len(found))


def _chunks(found: list[DeltaBlock]) -> Iterator[list[DeltaBlock]]:
    """Consecutive blocks of at most _CHUNK_BYTES together (or one that is larger)."""
    chunk: list[DeltaBlock] = []
    size = 0
    for block in found:
        nbytes = block.keys.nbytes + block.deltas.nbytes
        if chunk and size + nbytes > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(block)
        size += nbytes
    if chunk:
        yield chunk
