"""One table of a model at one replica: index, rows and journals, and everything that changes them.

One writer. Every public method is vectorised over keys; rows are written in short runs between two bumps of their
versions, so that readers never see half of one (see `reading`).
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.arena import Arena, arena_columns, row_bytes
from ekko.storage.chains import Later, label_of_entries, later_entries
from ekko.storage.index import KeyIndex, Slots, index_columns
from ekko.storage.journal import JournalPool, entry_bytes, journal_columns
from ekko.storage.memory import Segment
from ekko.storage.merging import sum_duplicates
from ekko.storage.reading import TableReader

_RUN = 2048
"""Rows written at once: half a MiB at dim 64, which stays in the second-level cache between gather, add and scatter."""

_OVERFLOWS_KEPT = 16
_INT32_MAX = int(np.iinfo(np.int32).max)


@dataclass(slots=True)
class Overflows:
    """Row values that wrapped around: how many rows, and the last keys."""

    count: int
    last_keys: "deque[int]"


class Table:
    """Rows and journals of one table.

    Args:
        capacity: rows that may ever be held; entry_capacity: journal entries in memory.
    """

    def __init__(self, declaration: TableDeclaration, capacity: int, entry_capacity: int) -> None:
        self.declaration = declaration
        columns = [
            *index_columns(capacity),
            *arena_columns(capacity, declaration.dim),
            *journal_columns(entry_capacity, declaration.dim),
        ]
        self.segment = Segment.create(columns)
        self.index = KeyIndex(self.segment.arrays)
        self.arena = Arena(self.segment.arrays)
        self.pool = JournalPool(self.segment.arrays)
        self.reader = TableReader(self.segment.arrays)
        self.overflows = Overflows(0, deque(maxlen=_OVERFLOWS_KEPT))
        self._rows = np.empty((_RUN, declaration.dim), dtype=np.int32)

    def memory_bytes(self) -> int:
        """Bytes of rows, columns, index and journal entries in use."""
        dim = self.declaration.dim
        return self.arena.used * row_bytes(dim) + self.pool.count * entry_bytes(dim)

    def growth(self, keys: UInt64s) -> int:
        """Upper bound of the bytes that applying deltas of `keys` adds."""
        dim = self.declaration.dim
        absent = int((self.index.find(keys) < 0).sum())
        return absent * row_bytes(dim) + len(keys) * entry_bytes(dim)

    def apply(self, keys: UInt64s, deltas: Int32s, label: int, arrival: int, *, journal: bool) -> int:
        """Add deltas (int32[N, dim]) of one epoch to rows and later journals; the number of rows changed.

        Args:
            label: the epoch's journal.
            arrival: the epoch in which they arrived.
            journal: whether to keep what the rows were before (not below the bound).
        """
        keys, deltas = sum_duplicates(keys, deltas)
        slots = self.slots_of(keys)
        reach = max(int(deltas.max(initial=0)), -int(deltas.min(initial=0)))
        for start in range(0, len(slots), _RUN):
            part = slice(start, start + _RUN)
            self._write(slots[part], deltas[part], label, reach, journal=journal)
        self.arena.arrivals[slots] = np.maximum(self.arena.arrivals.take(slots), arrival)
        self.arena.dirty[slots] = True
        return len(slots)

    def slots_of(self, keys: UInt64s) -> Slots:
        """Slots of distinct keys; absent ones get a slot with a zero row."""
        slots = self.index.find(keys)
        absent = np.flatnonzero(slots < 0)
        if absent.size:
            held = self.arena.used
            new = self.arena.add(keys[absent])
            self.index.insert(keys[absent], new, held)
            slots[absent] = new
        return slots

    def undo(self, first: int, last: int) -> int:
        """Take back what the epochs of journals first..last added; the number of rows changed."""
        entries = self.pool.select(first, last)
        slots = np.sort(self.pool.slots.take(entries)) - 1
        slots = slots[np.concatenate(([True], slots[1:] != slots[:-1]))] if len(slots) else slots
        for start in range(0, len(slots), _RUN):
            self._take_back(slots[start : start + _RUN].astype(np.int64), first, last)
        self.pool.free(entries)
        return len(slots)

    def drop_below(self, label: int) -> None:
        """Forget the journals below `label`."""
        self.pool.free(self.pool.select(0, label - 1))

    def unite(self, source: int, target: int) -> None:
        """Make the journals `target` < `source`, with none between them, one: the older value of a key stands."""
        entries = self.pool.select(source, source)
        for start in range(0, len(entries), _RUN):
            self._unite(entries[start : start + _RUN], source, target)

    def _write(self, slots: Slots, deltas: Int32s, label: int, reach: int, *, journal: bool) -> None:
        newest = self.arena.newest.take(slots)
        if journal:
            self._journal_at_head(slots[newest <= label], label)
        behind = np.flatnonzero(newest > label + 1)
        later = later_entries(self.arena, self.pool, slots[behind], label) if behind.size else None
        if later is not None and journal:
            self._journal_between(slots[behind], later, label)
        versions = self.arena.begin_write(slots)
        rows = self._rows[: len(slots)]
        np.take(self.arena.rows, slots, axis=0, mode="clip", out=rows)
        rows += deltas
        _scatter(self.arena.rows, slots, rows)
        if later is not None:
            self._add_to_entries(later.entries, deltas.take(behind[later.owners], axis=0))
        self.arena.end_write(slots, versions)
        self._watch_overflow(slots, rows, deltas, reach)

    def _journal_at_head(self, slots: Slots, label: int) -> None:
        """First touch in the newest epoch of these slots: their current rows are the entries."""
        if not len(slots):
            return
        entries = self.pool.allocate(len(slots))
        values = self._rows[: len(slots)]
        np.take(self.arena.rows, slots, axis=0, mode="clip", out=values)
        self.pool.fill(entries, slots, label, self.arena.heads.take(slots), values)
        self.arena.heads[slots] = entries + 1
        self.arena.newest[slots] = label + 1

    def _journal_between(self, slots: Slots, later: Later, label: int) -> None:
        """First touch in an older epoch: the oldest later entry's value is the entry, put behind it in the chain."""
        exact = (later.reached >= 0) & (self.pool.labels.take(np.maximum(later.reached, 0)) == label)
        missing = np.flatnonzero((later.oldest >= 0) & ~exact)
        if not missing.size:
            return
        after = later.oldest[missing]
        entries = self.pool.allocate(len(missing))
        values = self.pool.values.take(after, axis=0)
        self.pool.fill(entries, slots[missing], label, later.reached[missing] + 1, values)
        self.pool.previous[after] = entries + 1

    def _add_to_entries(self, entries: Slots, deltas: Int32s) -> None:
        values = self.pool.values.take(entries, axis=0)
        values += deltas
        _scatter(self.pool.values, entries, values)
        self.pool.dirty[entries] = True

    def _take_back(self, slots: Slots, first: int, last: int) -> None:
        arena, pool = self.arena, self.pool
        after = later_entries(arena, pool, slots, last)
        before = later_entries(arena, pool, slots, first - 1)
        rows = arena.rows.take(slots, axis=0)
        held = np.flatnonzero(after.oldest >= 0)
        ends = rows.copy()
        ends[held] = pool.values.take(after.oldest[held], axis=0)
        changes = pool.values.take(before.oldest, axis=0) - ends
        versions = arena.begin_write(slots)
        _scatter(arena.rows, slots, rows + changes)
        self._add_to_entries(after.entries, changes.take(after.owners, axis=0))
        pool.previous[after.oldest[held]] = before.reached[held] + 1
        bare = np.flatnonzero(after.oldest < 0)
        arena.heads[slots[bare]] = before.reached[bare] + 1
        arena.newest[slots[bare]] = label_of_entries(pool, before.reached[bare])
        arena.end_write(slots, versions)
        arena.dirty[slots] = True

    def _unite(self, entries: Slots, source: int, target: int) -> None:
        arena, pool = self.arena, self.pool
        slots = pool.slots.take(entries).astype(np.int64) - 1
        older = pool.follow(pool.previous.take(entries), slots, np.full(len(entries), source))
        both = (older >= 0) & (pool.labels.take(np.maximum(older, 0)) == target)
        kept, dropped = entries[both], older[both]
        versions = arena.begin_write(slots)
        _scatter(pool.values, kept, pool.values.take(dropped, axis=0))
        pool.previous[kept] = pool.previous.take(dropped)
        pool.dirty[kept] = pool.dirty.take(dropped)
        pool.labels[entries] = target
        at_head = arena.heads.take(slots) == entries + 1
        arena.newest[slots[at_head]] = target + 1
        arena.end_write(slots, versions)
        pool.free(dropped)

    def _watch_overflow(self, slots: Slots, rows: Int32s, deltas: Int32s, reach: int) -> None:
        """A sum that wrapped lies within `reach` of the far end of the range; look closer only then."""
        if int(rows.max(initial=0)) < _INT32_MAX - reach and int(rows.min(initial=0)) > reach - _INT32_MAX:
            return
        before = rows - deltas
        wrapped = (((before ^ rows) & (deltas ^ rows)) < 0).any(axis=1)
        self.overflows.count += int(wrapped.sum())
        self.overflows.last_keys.extend(self.arena.keys[slots[wrapped]][-_OVERFLOWS_KEPT:].tolist())


def _scatter(target: Int32s, places: Slots, rows: Int32s) -> None:
    """target[places] = rows, with whole rows as items: twice as fast as fancy indexing."""
    item = np.dtype((np.void, target.shape[1] * 4))
    np.put(target.view(item).ravel(), places, np.ascontiguousarray(rows).view(item).ravel(), mode="clip")
