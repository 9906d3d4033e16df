"""The table that applies: index, rows and journals, and how deltas change them; `table` adds what takes them back.

One writer. Every public method is vectorised over keys; rows are written in short runs between two bumps of their
versions, so that readers never see half of one (see `reading`).
"""

import numpy as np

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.disk.entry_source import EntrySource
from ekko.storage.engine.arena import Arena, arena_columns, row_bytes
from ekko.storage.engine.capture import Allocate, TableCapture
from ekko.storage.engine.chains import Later, later_entries
from ekko.storage.engine.distinct import distinct
from ekko.storage.engine.index import KeyIndex, Slots, index_columns
from ekko.storage.engine.journal import ENTRY_BYTES, JournalPool, Listener, journal_columns, nobody
from ekko.storage.engine.memory import Segment
from ekko.storage.engine.merging import sum_duplicates
from ekko.storage.engine.overflow import Overflows
from ekko.storage.engine.pinned import PinnedState, pinned_columns
from ekko.storage.engine.prefault import Prefaulter
from ekko.storage.engine.reading import TableReader
from ekko.storage.engine.scatter import scatter

_RUN_BYTES = 512 << 10
_RUN_ROWS = 8_192
"""What is written at once stays in the second-level cache between gather, add and scatter, and readers are not long
kept from it: half a MiB of rows, 8,192 at most."""


class ApplyingTable:
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
        self._before_rows: Listener = nobody
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
        self.arena.dirty[slots] = 1
        self._prefaulter.notice()
        return len(slots)

    def capture(self, allocate: Allocate) -> TableCapture:
        """Begin to copy what is dirty as it is now, into memory from `allocate`; until `release_capture`."""
        capture = TableCapture(self.declaration.name, self.arena, self.pool, allocate)
        self._before_rows, self.pool.before_change = capture.before_rows, capture.before_entries
        return capture

    def release_capture(self) -> None:
        """A capture is whole or given up: it need not hear of changes any more."""
        self._before_rows = self.pool.before_change = nobody

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
        self._before_rows(slots)
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
