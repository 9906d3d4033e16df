"""One table of a model at one replica: index, rows and journals, and everything that changes them.

One writer. Every public method is vectorised over keys; rows are written in short runs between two bumps of their
versions, so that readers never see half of one (see `reading`).
"""

import numpy as np

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import MemoryExhausted
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.disk.entry_source import EntrySource
from ekko.storage.engine.arena import Arena, arena_columns, row_bytes
from ekko.storage.engine.chains import Later, label_of_entries, later_entries
from ekko.storage.engine.index import KeyIndex, Slots, index_columns
from ekko.storage.engine.journal import ENTRY_BYTES, JournalPool, journal_columns
from ekko.storage.engine.memory import Array, Segment
from ekko.storage.engine.merging import sum_duplicates
from ekko.storage.engine.overflow import Overflows
from ekko.storage.engine.pinned import PinnedState, pinned_columns
from ekko.storage.engine.prefault import Prefaulter
from ekko.storage.engine.reading import Bools, TableReader, nonzero_rows
from ekko.storage.engine.scatter import scatter

_RUN_BYTES = 512 << 10
_RUN_ROWS = 8_192
"""What is written at once stays in the second-level cache between gather, add and scatter, and readers are not long
kept from it: half a MiB of rows, 8,192 at most."""

_LET_GO = 65_536
_ABOVE_ALL = np.iinfo(np.int64).max


class Table:
    """Rows and journals of one table.

    Args:
        capacity: rows that may ever be held; entry_capacity: journal entries.
        source: where journal entries are read whose values memory has let go.
    """

    def __init__(self, declaration: TableDeclaration, capacity: int, entry_capacity: int, source: EntrySource) -> None:
        self.declaration = declaration
        self.source = source
        columns = [
            *index_columns(capacity),
            *arena_columns(capacity, declaration.dim),
            *journal_columns(entry_capacity, declaration.dim),
            *pinned_columns(capacity),
        ]
        self.segment = Segment.create(columns)
        self.index = KeyIndex(self.segment.arrays)
        self.arena = Arena(self.segment.arrays)
        self.pool = JournalPool(self.segment.arrays)
        self.pinned = PinnedState(self.segment.arrays)
        self.reader = TableReader(self.segment.arrays, source)
        self._prefaulter = Prefaulter()
        self._prefaulter.watch(self.arena.rows, lambda: self.arena.top * declaration.dim * 4)
        self._prefaulter.watch(self.pool.values, lambda: self.pool.room.top * declaration.dim * 4)
        self._prefaulter.watch(self.segment.arrays["index_entries"], lambda: self.index.nbytes)
        self.overflows = Overflows()
        self._run = max(1, min(_RUN_ROWS, _RUN_BYTES // (declaration.dim * 4)))
        self._rows = np.empty((self._run, declaration.dim), dtype=np.int32)

    def memory_bytes(self) -> int:
        """Bytes of rows, columns, index and journals in use."""
        return self.arena.count * row_bytes(self.declaration.dim) + self.pool.nbytes

    def journal_bytes(self, label: int) -> int:
        """Bytes of values in one journal, in memory or on disk."""
        return len(self.pool.select(label, label)) * self.declaration.dim * 4

    def most(self, rows: int) -> int:
        """Upper bound of the bytes that deltas of so many keys add."""
        dim = self.declaration.dim
        return rows * (row_bytes(dim) + ENTRY_BYTES + dim * 4)

    def growth(self, keys: UInt64s) -> int:
        """Upper bound of the bytes that deltas of these keys add."""
        dim = self.declaration.dim
        absent = int((self.index.find(keys) < 0).sum())
        return absent * row_bytes(dim) + len(keys) * (ENTRY_BYTES + dim * 4)

    def apply(self, keys: UInt64s, deltas: Int32s, label: int, arrival: int, *, journal: bool) -> int:
        """Add deltas (int32[N, dim]) of one epoch to rows and later journals; the number of rows changed.

        Args:
            label: the epoch's journal.
            arrival: the epoch in which they arrived.
            journal: whether to keep what the rows were before (not below the bound).
        """
        keys, deltas = sum_duplicates(keys, deltas)
        slots = self.slots_of(keys)
        for start in range(0, len(slots), self._run):
            part = slice(start, start + self._run)
            self._write(slots[part], deltas[part], label, journal=journal)
        self.arena.arrivals[slots] = np.maximum(self.arena.arrivals.take(slots), arrival)
        self.arena.dirty[slots] = True
        self._prefaulter.notice()
        return len(slots)

    def close(self) -> None:
        """Stop what runs beside; the arrays stay for those who still read them."""
        self._prefaulter.close()

    def slots_of(self, keys: UInt64s) -> Slots:
        """Slots of distinct keys; absent ones get a slot with a zero row."""
        slots = self.index.find(keys)
        absent = np.flatnonzero(slots < 0)
        if absent.size:
            held = self.arena.count
            new = self.arena.add(keys[absent])
            self.index.insert(keys[absent], new, held)
            slots[absent] = new
        return slots

    def undo(self, first: int, last: int) -> int:
        """Take back what the epochs of journals first..last added; the number of rows changed."""
        entries = self.pool.select(first, last)
        slots = distinct(self.pool.slots.take(entries)) - 1
        for start in range(0, len(slots), self._run):
            self._take_back(slots[start : start + self._run], first, last)
        self.pool.free(entries)
        return len(slots)

    def pin(self, state: int, room: int) -> None:
        """Keep what every key was at the start of `state` in memory, one look away; instead of any other state.

        Raises:
            MemoryExhausted: its values do not fit into `room` bytes; unpin then.
        """
        entries = self.pinned.pin(state, self.pool, self.arena.top)
        needed = int((self.pool.places.take(entries) == 0).sum()) * self.declaration.dim * 4
        if needed > room:
            raise MemoryExhausted(
                f"{needed} bytes of table {self.declaration.name} as of state {state} do not fit into {room}",
                hint="give the store more --memory, or pin a newer state",
            )
        for start in range(0, len(entries), _LET_GO):
            self._bring_in(entries[start : start + _LET_GO])

    def drop_below(self, label: int) -> None:
        """Forget the journals below `label`."""
        self.pool.free(self.pool.select(0, label - 1))

    def unite(self, source: int, target: int) -> None:
        """Make the journals `target` < `source`, with none between them, one: the older value of a key stands."""
        entries = self.pool.select(source, source)
        runs = range(0, len(entries), self._run)
        doubles = [self._unite(entries[start : start + self._run], source, target) for start in runs]
        if doubles:
            self.pool.free(np.concatenate(doubles))

    def let_go(self, last: int) -> None:
        """Forget the values of durable journal entries with labels up to `last`."""
        pool = self.pool
        entries = pool.select(0, last)
        entries = entries[~pool.dirty.take(entries) & (pool.places.take(entries) != 0)]
        entries = entries[~self.pinned.holds(pool, entries)]
        for start in range(0, len(entries), _LET_GO):
            part = entries[start : start + _LET_GO]
            slots = distinct(pool.slots.take(part)) - 1
            versions = self.arena.begin_write(slots)
            pool.let_go(part)
            self.arena.end_write(slots, versions)

    def remove(self, slots: Slots) -> Slots:
        """Forget those of the slots that hold nothing: a zero row, no journal entry, nothing to be made durable.

        The slots that have only a journal entry are returned, to be tried again.
        """
        arena = self.arena
        entries = self.pool.follow(arena.heads.take(slots), slots, np.full(len(slots), _ABOVE_ALL))
        idle = ~arena.dirty.take(slots) & (arena.hashes.take(slots) == 0)
        idle &= ~nonzero_rows(arena.rows.take(slots, axis=0))
        gone = slots[idle & (entries < 0)]
        if len(gone):
            self.index.remove(arena.keys.take(gone))
            arena.free(gone)
        named: Slots = slots[idle & (entries >= 0)]
        return named

    def _write(self, slots: Slots, deltas: Int32s, label: int, *, journal: bool) -> None:
        newest = self.arena.newest.take(slots)
        if journal:
            self._journal_at_head(slots[newest <= label], label)
        behind = np.flatnonzero(newest > label + 1)
        later = later_entries(self.arena, self.pool, slots[behind], label) if behind.size else None
        if later is not None:
            self._bring_in(later.entries)
            if journal:
                self._journal_between(slots[behind], later, label)
        versions = self.arena.begin_write(slots)
        rows = self._rows[: len(slots)]
        self.arena.rows.take(slots, axis=0, mode="clip", out=rows)
        rows += deltas
        scatter(self.arena.rows, slots, rows)
        if later is not None:
            self.pool.add_to(later.entries, deltas.take(behind[later.owners], axis=0))
        self.arena.end_write(slots, versions)
        self.overflows.check(rows, deltas, self.arena.keys, slots)

    def _journal_at_head(self, slots: Slots, label: int) -> None:
        """First touch in the newest epoch of these slots: their current rows are the entries."""
        if not len(slots):
            return
        entries = self.pool.add(slots, label, self.arena.heads.take(slots), self.arena.rows, slots)
        self.arena.heads[slots] = entries + 1
        self.arena.newest[slots] = label + 1
        self.pinned.offer(self.pool, slots, entries, label)

    def _journal_between(self, slots: Slots, later: Later, label: int) -> None:
        """First touch in an older epoch: the oldest later entry's value is the entry, put behind it in the chain."""
        exact = (later.reached >= 0) & (self.pool.labels.take(np.maximum(later.reached, 0)) == label)
        missing = np.flatnonzero((later.oldest >= 0) & ~exact)
        if not missing.size:
            return
        after = later.oldest[missing]
        places = self.pool.places.take(after).astype(np.int64) - 1
        entries = self.pool.add(slots[missing], label, later.reached[missing] + 1, self.pool.values, places)
        self.pool.previous[after] = entries + 1
        self.pinned.offer(self.pool, slots[missing], entries, label)

    def _values(self, entries: Slots) -> Int32s:
        """Values of entries, from memory or disk."""
        missing = np.flatnonzero(self.pool.places.take(entries) == 0)
        values = self.pool.read(entries)
        if missing.size:
            values[missing] = self._read(entries[missing])
        return values

    def _bring_in(self, entries: Slots) -> None:
        """Take back into memory the values of those of the distinct entries that it has let go."""
        missing = entries[self.pool.places.take(entries) == 0]
        if missing.size:
            self.pool.bring_in(missing, self._read(missing))

    def _read(self, entries: Slots) -> Int32s:
        """Values of entries from disk."""
        values = np.empty((len(entries), self.declaration.dim), dtype=np.int32)
        labels = self.pool.labels.take(entries)
        for label in distinct(labels).tolist():
            part = np.flatnonzero(labels == label)
            owners = self.pool.slots.take(entries[part]).astype(np.int64) - 1
            values[part] = self.source.read(label, self.arena.keys.take(owners))
        return values

    def _take_back(self, slots: Slots, first: int, last: int) -> None:
        """Undo for slots with entries in journals first..last: those without a later one get their old row as it is."""
        later = self.arena.newest.take(slots) > last + 1
        self._restore(slots[~later], first, last)
        self._take_back_before(slots[later], first, last)
        self.arena.dirty[slots] = True

    def _restore(self, slots: Slots, first: int, last: int) -> None:
        arena, pool = self.arena, self.pool
        before = later_entries(arena, pool, slots, first - 1)
        rows = self._values(before.oldest)
        self.overflows.notice(rows)
        versions = arena.begin_write(slots)
        scatter(arena.rows, slots, rows)
        arena.heads[slots] = before.reached + 1
        arena.newest[slots] = label_of_entries(pool, before.reached)
        self.pinned.undo(pool, slots, first, last, None)
        arena.end_write(slots, versions)

    def _take_back_before(self, slots: Slots, first: int, last: int) -> None:
        """Take the contribution of first..last from rows and from the entries after them."""
        arena, pool = self.arena, self.pool
        after = later_entries(arena, pool, slots, last)
        before = later_entries(arena, pool, slots, first - 1)
        self._bring_in(after.entries)
        changes = self._values(before.oldest)
        changes -= pool.read(after.oldest)
        rows = arena.rows.take(slots, axis=0)
        rows += changes
        versions = arena.begin_write(slots)
        scatter(arena.rows, slots, rows)
        pool.add_to(after.entries, changes.take(after.owners, axis=0))
        pool.previous[after.oldest] = before.reached + 1
        self.pinned.undo(pool, slots, first, last, after.oldest)
        arena.end_write(slots, versions)
        self.overflows.check(rows, changes, arena.keys, slots)

    def _unite(self, entries: Slots, source: int, target: int) -> Slots:
        """Relabel entries; those whose key the older journal holds too take over its value. The doubles to be freed."""
        arena, pool = self.arena, self.pool
        slots = pool.slots.take(entries).astype(np.int64) - 1
        older = pool.follow(pool.previous.take(entries), slots, np.full(len(entries), source))
        both = (older >= 0) & (pool.labels.take(np.maximum(older, 0)) == target)
        kept: Slots = entries[both]
        doubles: Slots = older[both]
        versions = arena.begin_write(slots)
        newer = pool.places.take(kept)
        pool.places[kept] = pool.places.take(doubles)
        pool.places[doubles] = newer
        pool.previous[kept] = pool.previous.take(doubles)
        pool.dirty[kept] = pool.dirty.take(doubles)
        pool.labels[entries] = target
        self.pinned.replace(slots[both], doubles, kept)
        at_head = arena.heads.take(slots) == entries + 1
        arena.newest[slots[at_head]] = target + 1
        arena.end_write(slots, versions)
        return doubles


def distinct(numbers: Array) -> Slots:
    """Distinct values of numbers >= 0, ascending, as int64; `np.unique` hashes, which takes ten times as long."""
    ordered: Slots = np.sort(numbers).astype(np.int64)
    first: Bools = np.diff(ordered, prepend=-1) != 0
    return ordered[first]
