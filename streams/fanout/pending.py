"""Bulk rows that wait for bandwidth: one exact sum a key and (arrival epoch, effective epoch)."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ekko.schemas.epochs import EpochRange, is_void
from ekko.schemas.errors import GapError
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.streams.fanout.rows import KEY_BYTES, Bools, Indices, Int64s, RowUpdates, rows_fitting
from ekko.streams.fanout.slots import SortedSlots

FAR_FUTURE_US = int(np.iinfo(np.int64).max)
PART_BYTES = 256
"""What a lane record's head, key and framing may take."""

_Value = TypeVar("_Value", bound=np.generic)


class Group(NamedTuple):
    """What deltas must have in common to be summed: where they arrived, and to which epoch they belong for undo."""

    arrival: int
    effective: int


class PendingTable:
    """Waiting rows of one table in one group. A row whose sum is zero does not wait: there is nothing to send."""

    def __init__(self, dim: int) -> None:
        self._slots = SortedSlots()
        self._keys: UInt64s = np.empty(0, np.uint64)
        self._sums: Int32s = np.empty((0, dim), np.int32)
        self._created: Bools = np.empty(0, np.bool_)
        self._published: Int64s = np.empty(0, np.int64)
        self._waits: Bools = np.empty(0, np.bool_)
        self._cursor = 0
        self._oldest: int | None = None
        self.catalogue = 0
        self.rows = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        columns = (self._keys, self._sums, self._created, self._published, self._waits)
        return sum(column.nbytes for column in columns) + self._slots.nbytes

    @property
    def oldest_us(self) -> int:
        """When the oldest delta that waits was published; the far future if none does."""
        if self._oldest is None:
            waiting = self._published[: len(self._slots)][self._waits[: len(self._slots)]]
            self._oldest = int(waiting.min()) if len(waiting) else FAR_FUTURE_US
        return self._oldest

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
        after = self._sums[slots].any(axis=1)
        self._waits[slots] = after
        self.rows += int(np.count_nonzero(after)) - int(np.count_nonzero(before))
        self.catalogue = max(self.catalogue, updates.catalogue)
        self._oldest = None

    def subtract(self, keys: UInt64s, deltas: Int32s) -> bool:
        """Take deltas (distinct keys) back; False, changing nothing, where a key was never added."""
        slots = self._slots.find(keys)
        if (slots < 0).any():
            return False
        self.rows -= int(np.count_nonzero(self._waits[slots]))
        self._sums[slots] -= deltas
        self._waits[slots] = self._sums[slots].any(axis=1)
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
        return RowUpdates(updates.keys, deltas, created, published, catalogue), waiting

    def take(self, limit: int) -> RowUpdates:
        """Up to `limit` waiting rows, which wait no longer, keys rising.

        Rows are taken in a circle, in the order in which their keys first came: each one's turn comes before any
        other's second.
        """
        return self._advance(self._next(limit))

    def take_fitting(self, budget_bytes: float, *, at_least: int = 0) -> RowUpdates:
        """As `take`: as many rows as fit `budget_bytes` on the wire before compression, or `at_least`."""
        row_bytes = KEY_BYTES + self._sums.shape[1]
        slots = self._next(int(max(at_least, min(budget_bytes // row_bytes, self.rows))))
        return self._advance(slots[: max(at_least, rows_fitting(self._sums[slots], budget_bytes))])

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
            self._keys[order], self._sums[order], self._created[order], self._published[order], self.catalogue
        )
        self._sums[slots] = 0
        self._waits[slots] = False
        self.rows -= len(slots)
        self._oldest = None
        return taken

    def _reserve(self, count: int) -> None:
        if count > len(self._keys):
            capacity = max(count, 2 * len(self._keys), 64)
            self._keys = _grown(self._keys, capacity)
            self._sums = _grown(self._sums, capacity)
            self._created = _grown(self._created, capacity)
            self._published = _grown(self._published, capacity)
            self._waits = _grown(self._waits, capacity)


def _grown(column: npt.NDArray[_Value], capacity: int) -> npt.NDArray[_Value]:
    larger = np.zeros((capacity, *column.shape[1:]), column.dtype)
    larger[: len(column)] = column
    return larger


class Pending:
    """All that waits in one shard."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Group, str], PendingTable] = {}

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(table.rows for table in self._tables.values())

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(table.nbytes for table in self._tables.values())

    @property
    def oldest_us(self) -> int:
        """When the oldest delta that waits was published; the far future if none does."""
        return min((table.oldest_us for table in self._tables.values()), default=FAR_FUTURE_US)

    @property
    def oldest_arrival(self) -> int | None:
        """The oldest epoch in which something that waits arrived."""
        return min((group.arrival for (group, _), table in self._tables.items() if table.rows), default=None)

    def waits(self, arrival: int) -> bool:
        """Whether anything waits that arrived in this epoch."""
        return any(table.rows and group.arrival == arrival for (group, _), table in self._tables.items())

    def drop_arrival(self, arrival: int) -> None:
        """Forget what arrived in this epoch."""
        self._tables = {at: table for at, table in self._tables.items() if at[0].arrival != arrival}

    def add(self, group: Group, table: str, updates: RowUpdates) -> None:
        """Add deltas to what waits."""
        if (group, table) not in self._tables:
            self._tables[group, table] = PendingTable(updates.deltas.shape[1])
        self._tables[group, table].add(updates)

    def tables(self) -> Mapping[tuple[Group, str], PendingTable]:
        """Everything, by group and table."""
        return self._tables

    def adopt(self, other: "Pending") -> None:
        """Let what waits in `other` wait here: groups of which nothing waits here. `other` is used up."""
        self._tables |= other.tables()

    def subtract(self, group: Group, table: str, keys: UInt64s, deltas: Int32s) -> None:
        """Take back what has been sent.

        Raises:
            GapError: something was sent that never arrived.
        """
        waiting = self._tables.get((group, table))
        if waiting is None or not waiting.subtract(keys, deltas):
            raise GapError(
                f"table {table}, arrival epoch {group.arrival}: the lanes hold rows that the source log does not",
                hint="the source log is not the one that the lanes were written from; nothing was changed",
            )

    def take_with(self, group: Group, table: str, updates: RowUpdates) -> tuple[RowUpdates, Bools]:
        """See `PendingTable.take_with`."""
        waiting = self._tables.get((group, table))
        return (updates, np.zeros(len(updates), np.bool_)) if waiting is None else waiting.take_with(updates)

    def take(self, budget_bytes: float) -> Iterator[tuple[Group, str, RowUpdates]]:
        """Rows for at most `budget_bytes` on the wire, before compression, what arrived first going first.

        A budget above 0 lets at least one row go, however small it is: rows are not cut in pieces. Yields group, table
        and rows; each part also counts PART_BYTES for its record's head.
        """
        at_least = int(budget_bytes > 0)
        order = sorted(self._tables.items(), key=lambda item: (item[0][0].arrival, item[1].oldest_us))
        for (group, name), table in order:
            updates = table.take_fitting(budget_bytes - PART_BYTES, at_least=at_least)
            if len(updates):
                at_least = 0
                budget_bytes -= PART_BYTES + updates.wire_bytes
                yield group, name, updates

    def drop(self, voids: tuple[EpochRange, ...]) -> None:
        """Forget what belongs to void epochs."""
        self._tables = {at: table for at, table in self._tables.items() if not is_void(at[0].effective, voids)}

    def drop_empty(self, current: int) -> None:
        """Release the memory of groups that arrived before epoch `current` and have nothing left to send."""
        self._tables = {at: table for at, table in self._tables.items() if table.rows or at[0].arrival >= current}
