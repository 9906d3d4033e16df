"""Row updates on their way through the fan-out: columnar, summed exactly, never touched one by one in Python."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

KEY_BYTES = 8


@dataclass(frozen=True, slots=True)
class RowUpdates:
    """Changes of rows of one table.

    Attributes:
        keys: uint64[N], strictly rising.
        deltas: int32[N, dim], sums modulo 2**32.
        created: bool[N], rows that a trainer has just created.
        published_us: int64[N], entry into `publish` of the oldest delta summed in each row, microseconds since 1970.
        catalogue: catalogue offset (end) that a reader must have reached to know the table.
        step: value of the integer 1 in parameter units, 2**-fraction_bits.
        learnt: a trainer's; what an operation publishes is no gradient, and not urgent.
    """

    keys: UInt64s = field(repr=False)
    deltas: Int32s = field(repr=False)
    created: Bools = field(repr=False)
    published_us: Int64s = field(repr=False)
    catalogue: int = 0
    step: float = 1.0
    learnt: bool = True

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def wire_bytes(self) -> int:
        """Bytes of the rows on the wire, keys included, before compression."""
        return len(self.keys) * (KEY_BYTES + int(self.deltas.shape[1]) * width_of(self.deltas))

    def select(self, rows: Bools | Indices | slice) -> "RowUpdates":
        """Some of the rows, in their order."""
        return replace(
            self,
            keys=self.keys[rows],
            deltas=self.deltas[rows],
            created=self.created[rows],
            published_us=self.published_us[rows],
        )


def combine(parts: Sequence[RowUpdates]) -> RowUpdates:
    """One update a key: deltas summed, created if any was, published when the oldest was; for any `parts`."""
    updates = concatenate(parts)
    return merge(updates, updates.created)[0]


def concatenate(parts: Sequence[RowUpdates]) -> RowUpdates:
    """All updates one after the other, equal keys and all: not what `RowUpdates` promises; `merge` mends it."""
    if len(parts) == 1:
        return parts[0]
    return RowUpdates(
        np.concatenate([part.keys for part in parts]),
        np.concatenate([part.deltas for part in parts]),
        np.concatenate([part.created for part in parts]),
        np.concatenate([part.published_us for part in parts]),
        max(part.catalogue for part in parts),
        parts[0].step,
    )


def merge(updates: RowUpdates, marks: Bools) -> tuple[RowUpdates, Bools]:
    """One update a key, see `combine`; and of `marks` (bool[N]) whether any of a key's was set."""
    if is_rising(updates.keys):
        return updates, marks
    order = np.argsort(updates.keys, kind="stable")
    keys = updates.keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    merged = RowUpdates(
        keys[starts],
        sum_segments(updates.deltas[order], starts),
        np.logical_or.reduceat(updates.created[order], starts),
        np.minimum.reduceat(updates.published_us[order], starts),
        updates.catalogue,
        updates.step,
    )
    return merged, np.logical_or.reduceat(marks[order], starts)


def is_rising(keys: UInt64s) -> bool:
    """Whether the keys are sorted and distinct."""
    return bool(np.all(keys[1:] > keys[:-1]))


def sum_segments(rows: Int32s, starts: Indices) -> Int32s:
    """Wrap-around sums of consecutive rows: int32[len(starts), dim]; overwrites `rows`.

    Each pass adds every second row of a segment to the one before it, so a hot key costs log2(occurrences) passes.
    `np.add.reduceat` over rows does the same 2 to 20 times slower at dim 64 (measured; at dim 1 it is faster).
    """
    counts = np.diff(starts, append=len(rows))
    segment = np.repeat(np.arange(len(starts)), counts)
    at = np.flatnonzero(counts[segment] > 1)
    while len(at):
        owner = segment[at]
        begins = np.flatnonzero(np.diff(owner, prepend=-1))
        position = np.arange(len(at)) - np.repeat(begins, np.diff(begins, append=len(at)))
        odd = np.flatnonzero(position & 1)
        rows[at[odd - 1]] += rows[at[odd]]
        at = np.delete(at, odd)
        same = np.diff(segment[at]) == 0
        at = at[np.append(same, False) | np.append(False, same)] if len(at) > 1 else at[:0]
    return rows[starts]


def width_of(deltas: Int32s) -> int:
    """Bytes a value takes on the wire: 1, 2 or 4, the narrowest that holds all of them (see `quantize.pack`)."""
    if not deltas.size:
        return 1
    low, high = int(deltas.min()), int(deltas.max())
    return next(width for width in (1, 2, 4) if -(1 << (8 * width - 1)) <= low and high < 1 << (8 * width - 1))


def rows_fitting(deltas: Int32s, budget_bytes: float) -> int:
    """How many of the first rows take at most `budget_bytes` on the wire, keys included, before compression."""
    dim = deltas.shape[1]
    fits = min(len(deltas), int(budget_bytes // (KEY_BYTES + dim)))
    return min(fits, int(budget_bytes // (KEY_BYTES + dim * width_of(deltas[:fits]))))
