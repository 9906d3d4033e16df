"""Waiting rows of one table in one group: exact sums, taken in turn or by how much they have changed."""

import math
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.streams.fanout.rows import KEY_BYTES, Bools, Float32s, Indices, Int64s, RowUpdates, rows_fitting, width_of
from ekko.streams.fanout.slots import SLOT_BYTES, SortedSlots

FAR_FUTURE_US = int(np.iinfo(np.int64).max)

_Value = TypeVar("_Value", bound=np.generic)


class PendingTable:
    """Waiting rows of one table in one group. A row whose sum is zero does not wait: there is nothing to send."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._slots = SortedSlots()
        self._keys: UInt64s = np.empty(0, np.uint64)
        self._sums: Int32s = np.empty((0, dim), np.int32)
        self._created: Bools = np.empty(0, np.bool_)
        self._published: Int64s = np.empty(0, np.int64)
        self._waits: Bools = np.empty(0, np.bool_)
        self._changes = np.empty(0, np.float32)
        self._cursor = 0
        self._oldest: int | None = None
        self._usual_width = 2
        self.catalogue, self.step = 0, 1.0
        self.rows = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        columns = (self._keys, self._sums, self._created, self._published, self._waits, self._changes)
        return sum(column.nbytes for column in columns) + self._slots.nbytes

    def nbytes_with(self, more: int) -> int:
        """Bytes of memory held at most once `more` keys are added."""
        count = len(self._slots) + more
        columns = (self._keys, self._sums, self._created, self._published, self._waits, self._changes)
        a_row = sum(column.itemsize * math.prod(column.shape[1:]) for column in columns)
        return self._capacity_for(count) * a_row + self._slots.nbytes + more * SLOT_BYTES

    @property
    def oldest_us(self) -> int:
        """When the oldest delta that waits was published; the far future if none does."""
        if self._oldest is None:
            waiting = self._published[: len(self._slots)][self._waits[: len(self._slots)]]
            self._oldest = int(waiting.min()) if len(waiting) else FAR_FUTURE_US
        return self._oldest

    @property
    def known(self) -> UInt64s:
        """Keys that were added, in the order in which they first came, whether they wait or not."""
        return self._keys[: len(self._slots)]

    def add(self, updates: RowUpdates) -> None:
        """Add deltas to what waits for their keys."""
        slots = self._slots.find_or_add(updates.keys)
        self._reserve(len(self._slots))
        before = self._waits[slots]
        fresh = ~before
        self._keys[slots] = updates.keys
        self._sums[slots] += updates.deltas
        self._created[slots] = updates.created | (self._created[slots] & before)
        self._published[slots] = np.where(
            fresh, updates.published_us, np.minimum(self._published[slots], updates.published_us)
        )
        changes = np.abs(self._sums[slots], dtype=np.float32, casting="unsafe").sum(axis=1) * np.float32(updates.step)
        after = changes > 0
        self._waits[slots], self._changes[slots] = after, changes
        self.rows += int(np.count_nonzero(after)) - int(np.count_nonzero(before))
        self.catalogue, self.step = max(self.catalogue, updates.catalogue), updates.step
        self._oldest = None

    def take_over(self, newer: "PendingTable") -> None:
        """Take over another table, whose deltas arrived later; turns stay as they are.

        Keys whose sum is zero stay known: something may have been sent of them that is yet to be subtracted. It takes
        no more memory than both did: a bound that was kept is kept.
        """
        keys = np.sort(newer.known)
        self._grow(len(self._slots) + int(np.count_nonzero(self._slots.find(keys) < 0)))
        self._keys[self._slots.find_or_add(keys)] = keys
        self.add(newer.take(newer.rows))

    def compact(self) -> None:
        """Release the memory of rows that do not wait, if they are most; turns stay as they are.

        Nothing may be subtracted afterwards.
        """
        if 2 * self.rows >= len(self._slots):
            return  # so a row is moved a few times only
        waiting = self.waiting()
        order = np.roll(waiting, -int(np.searchsorted(waiting, self._cursor)))
        self._slots, self._cursor = SortedSlots.of(self._keys[order]), 0
        self._keys, self._sums, self._created = self._keys[order], self._sums[order], self._created[order]
        self._published, self._changes = self._published[order], self._changes[order]
        self._waits = self._waits[order]

    def subtract(self, keys: UInt64s, deltas: Int32s) -> bool:
        """Take deltas (distinct keys) back; False, changing nothing, where a key was never added."""
        slots = self._slots.find(keys)
        if (slots < 0).any():
            return False
        self.rows -= int(np.count_nonzero(self._waits[slots]))
        self._sums[slots] -= deltas
        changes = np.abs(self._sums[slots], dtype=np.float32, casting="unsafe").sum(axis=1) * np.float32(self.step)
        self._waits[slots], self._changes[slots] = changes > 0, changes
        self.rows += int(np.count_nonzero(self._waits[slots]))
        self._oldest = None
        return True

    def take_with(self, updates: RowUpdates) -> tuple[RowUpdates, Bools]:
        """`updates` plus what waits for the same keys, which waits no longer; and which rows that were, bool[N]."""
        slots = self._slots.find(updates.keys)
        waiting = slots >= 0
        waiting[waiting] = self._waits[slots[waiting]]
        if not waiting.any():
            return updates, waiting
        taken = self._take(slots[waiting])
        deltas, created, published = updates.deltas.copy(), updates.created.copy(), updates.published_us.copy()
        deltas[waiting] += taken.deltas
        created[waiting] |= taken.created
        published[waiting] = np.minimum(published[waiting], taken.published_us)
        catalogue = max(self.catalogue, updates.catalogue)
        return replace(updates, deltas=deltas, created=created, published_us=published, catalogue=catalogue), waiting

    def take(self, limit: int) -> RowUpdates:
        """Up to `limit` waiting rows, which wait no longer, keys rising.

        Rows are taken in a circle, in the order in which their keys first came: each one's turn comes before any
        other's second.
        """
        return self._advance(self._next(limit))

    def take_fitting(self, budget_bytes: float, *, at_least: int = 0) -> RowUpdates:
        """As `take`: as many rows as fit `budget_bytes` on the wire before compression, or `at_least`."""
        row_bytes = KEY_BYTES + self.dim
        slots = self._next(int(max(at_least, min(budget_bytes // row_bytes, self.rows))))
        return self._advance(slots[: max(at_least, rows_fitting(self._sums[slots], budget_bytes))])

    @property
    def most_bytes(self) -> int:
        """Bytes on the wire of everything that waits, at most."""
        return self.rows * (KEY_BYTES + 4 * self.dim)

    @property
    def usual_row_bytes(self) -> int:
        """Bytes on the wire of a row, judged by those sent last."""
        return KEY_BYTES + self._usual_width * self.dim

    def waiting(self) -> Indices:
        """Slots of the rows that wait."""
        return np.flatnonzero(self._waits[: len(self._slots)])

    def changes(self, slots: Indices) -> Float32s:
        """l1 norms of what waits, in parameter units: float32[N]."""
        return self._changes[slots]

    def is_due(self, slots: Indices, due_us: int) -> Bools:
        """Whether the oldest delta that waits was published before `due_us`: bool[N]."""
        return self._published[slots] < due_us

    def take_slots_fitting(self, slots: Indices, budget_bytes: float, *, at_least: int = 0) -> RowUpdates:
        """The first of these waiting slots, as many as fit or `at_least`; they wait no longer."""
        return self._take(slots[: max(at_least, rows_fitting(self._sums[slots], budget_bytes))])

    def _next(self, limit: int) -> Indices:
        """The next waiting slots in turn, up to `limit`."""
        count = len(self._slots)
        found = np.empty(0, np.intp)
        start, left = self._cursor, count
        while len(found) < min(limit, self.rows) and left > 0:
            # Look at about as many slots as are wanted: a pass over all for a few rows costs more than sending them.
            stop = min(start + max(4 * limit, 1024), count, start + left)
            found = np.append(found, start + np.flatnonzero(self._waits[start:stop]))
            left -= stop - start
            start = stop % count
        return found[:limit]

    def _advance(self, slots: Indices) -> RowUpdates:
        if len(slots):
            self._cursor = int(slots[-1]) + 1
        return self._take(slots)

    def _take(self, slots: Indices) -> RowUpdates:
        order = slots[np.argsort(self._keys[slots])]
        taken = RowUpdates(
            self._keys[order],
            self._sums[order],
            self._created[order],
            self._published[order],
            self.catalogue,
            self.step,
        )
        self._usual_width = width_of(taken.deltas)
        self._sums[slots] = 0
        self._waits[slots] = False
        self.rows -= len(slots)
        self._oldest = None
        return taken

    def _capacity_for(self, count: int) -> int:
        """Rows that the columns hold once there are `count`: doubled, so that each is moved a few times only."""
        return len(self._keys) if count <= len(self._keys) else max(count, 2 * len(self._keys), 64)

    def _reserve(self, count: int) -> None:
        self._grow(self._capacity_for(count))

    def _grow(self, capacity: int) -> None:
        if capacity > len(self._keys):
            self._keys = _grown(self._keys, capacity)
            self._sums = _grown(self._sums, capacity)
            self._created = _grown(self._created, capacity)
            self._published = _grown(self._published, capacity)
            self._waits = _grown(self._waits, capacity)
            self._changes = _grown(self._changes, capacity)


def _grown(column: npt.NDArray[_Value], capacity: int) -> npt.NDArray[_Value]:
    larger = np.zeros((capacity, *column.shape[1:]), column.dtype)
    larger[: len(column)] = column
    return larger
