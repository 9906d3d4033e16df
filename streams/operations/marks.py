"""Up to where an operation must read the source log, so that all that was written before it is seen.

Others' open transactions hide what comes after them, also the last chunk of an attempt that has just ended. So an
attempt first writes an empty block into every shard: once that can be read, all before it is decided.
"""

from collections.abc import Sequence

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.streams.log import Output, Partition, TransactionalWriter
from ekko.streams.operations.parts import Provenance


def mark_ends(writer: TransactionalWriter, model: ModelDeclaration, provenance: Provenance) -> Sequence[int] | None:
    """Write the marks; the offset just after each shard's. None: the model has no table, and so no blocks.

    Raises:
        Fenced, CommitUncertain, TransactionAborted: see `TransactionalWriter.transact`.
    """
    if not model.tables:
        return None
    assert model.incarnation is not None
    table = model.tables[0]
    marks = [
        DeltaBlock(
            incarnation=model.incarnation,
            table=table.name,
            shard=shard,
            keys=np.empty(0, np.uint64),
            deltas=np.empty((0, table.dim), np.int32),
            purpose=provenance.purpose,
            trainer=provenance.operation,
            generation=provenance.generation,
            catalogue=provenance.catalogue,
            operation=f"{provenance.operation}/0",
            published_us=provenance.published_us,
        )
        for shard in range(model.shards)
    ]
    topic = topics.deltas(model.name)
    offsets = writer.transact([Output(Partition(topic, mark.shard), encode(mark)) for mark in marks])
    return [offset + 1 for offset in offsets]
