"""Columnar batches of row changes: delta blocks (source log) and lane blocks (a region's lanes)."""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ekko.schemas.epochs import Barrier, Settled
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s


class Lane(StrEnum):
    """A region's topic for one urgency."""

    EXPRESS = "express"
    BULK = "bulk"


class Purpose(StrEnum):
    """Why a delta block was published; all but `train` are operations."""

    TRAIN = "train"
    RETRACT = "retract"
    REINSTATE = "reinstate"
    EXPIRE = "expire"
    IMPORT = "import"


@dataclass(frozen=True, slots=True)
class DeltaBlock:
    """Additive changes of rows of one table in one shard.

    Attributes:
        incarnation: the model's.
        keys: uint64[N], distinct.
        deltas: int32[N, dim].
        created: bool[N], rows the trainer has just created, or None for none.
        trainer: who learnt it.
        generation: the rollback count its trainer had completed.
        catalogue: catalogue offset (end) as of which the publisher knew its table.
        effective: epoch that a retraction takes back; None: the epoch in which it arrives.
        operation: identity and chunk of the operation it belongs to, e.g. "retract-7f3a/12".
        trainer_position: the trainer's own input position, opaque bytes.
        published_us: entry into `publish`, microseconds since 1970.
    """

    incarnation: int
    table: str
    shard: int
    keys: UInt64s = field(repr=False)
    deltas: Int32s = field(repr=False)
    created: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    purpose: Purpose = Purpose.TRAIN
    trainer: str = ""
    generation: int = 0
    catalogue: int = 0
    effective: int | None = None
    operation: str | None = None
    trainer_position: bytes | None = None
    published_us: int = 0


@dataclass(frozen=True, slots=True)
class LaneBlock:
    """What a fan-out sends to its region's stores: rows of one table, or a barrier marker without rows.

    Attributes:
        incarnation, region_incarnation: the model's and the region's.
        seq: contiguous a shard over both lanes, from 1; `previous`: the last seq of the same lane before it (0: none).
        arrival, effective: epoch in which the deltas arrived, and to which they belong for undo. Where several are
            summed, the first: all states between them are withdrawn, and a marker sent before says so.
        generation: the one in force where they arrived.
        settled: see `Settled`; upto: source offset (end) read so far.
        catalogue: catalogue offset (end) that a reader must have reached.
        table: empty in a marker. keys: uint64[N], distinct. deltas: int32[N, dim].
        barrier: only in an express marker, with all that it carries.
        published_us: entry into `publish` of the oldest delta in it.
        newest_arrival: where several epochs are summed, one after which nothing of it arrived; None: `arrival`.
    """

    incarnation: int
    region_incarnation: int
    shard: int
    seq: int
    previous: int
    arrival: int
    effective: int
    generation: int
    settled: Settled
    upto: int
    catalogue: int = 0
    table: str = ""
    keys: UInt64s = field(default_factory=lambda: np.empty(0, np.uint64), repr=False)
    deltas: Int32s = field(default_factory=lambda: np.empty((0, 1), np.int32), repr=False)
    barrier: Barrier | None = None
    published_us: int = 0
    newest_arrival: int | None = None
