"""Rows that an operation publishes, before they become blocks (pure)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.declarations import ModelDeclaration
from ekko.streams.operations.sums import Rows
from ekko.streams.publisher.batches import BlockLimits, ShardedRows, cut


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one table and shard, learnt by one trainer.

    Attributes:
        effective: the epoch to which they belong; None: that in which they arrive.
        operation: the identity that they carry; "": that of the operation which publishes them.
    """

    table: str
    shard: int
    effective: int | None
    trainer: str
    rows: Rows = field(repr=False)
    operation: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What all blocks of an operation carry.

    Attributes:
        operation: its identity, e.g. "retract/trainer-7/12-40"; the number of the chunk is added to it.
        generation: the one in force; catalogue: its end as read.
        published_us: microseconds since 1970.
    """

    purpose: Purpose
    operation: str
    generation: int
    catalogue: int
    published_us: int


def blocks(
    model: ModelDeclaration, parts: Iterable[Part], provenance: Provenance, limits: BlockLimits
) -> Iterator[DeltaBlock]:
    """The blocks that carry `parts`, each within `limits`.

    Raises:
        BadInput: not even one row fits the topic's limit.
    """
    assert model.incarnation is not None
    for part in parts:
        table = model.table(part.table)
        template = DeltaBlock(
            incarnation=model.incarnation,
            table=part.table,
            shard=part.shard,
            keys=part.rows.keys[:0],
            deltas=part.rows.deltas[:0],
            purpose=provenance.purpose,
            trainer=part.trainer,
            generation=provenance.generation,
            catalogue=provenance.catalogue,
            effective=part.effective,
            operation=part.operation or provenance.operation,
            published_us=provenance.published_us,
        )
        starts = np.where(np.arange(model.shards + 1) > part.shard, len(part.rows.keys), 0)
        yield from cut(ShardedRows(table, part.rows.keys, part.rows.deltas, None, starts), template, limits)
