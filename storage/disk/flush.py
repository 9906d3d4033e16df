"""Making a store durable without holding up its applies.

The writer only copies what changed since the last flush (capture); hashing, sorting, writing and syncing happen in the
background, and rows, journals, positions, voids and tallies become durable in one commit.

A zero row is no row, yet its arrival tag tells peers that the key has changed: its cell leaves the disk only when the
epoch it arrived in lies below the store's bound, to which no peer goes back.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ekko.schemas.epochs import EpochRange
from ekko.schemas.hashing import UInt64s, row_hashes
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.durable import Batch, Cells, Durable
from ekko.storage.disk.manifest import JournalEntry, Manifest, TableEntry, encode_manifest
from ekko.storage.engine.cells import journal_prefix, rows_prefix
from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal_directory import JournalDirectory
from ekko.storage.engine.memory import Array
from ekko.storage.engine.reading import nonzero_rows
from ekko.storage.engine.table import Table, distinct

_HASHED_AT_ONCE = 4096
"""Rows hashed in one go: they stay in the second-level cache while the columns are summed."""

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Capture:
    """Copies of one moment: everything a commit needs.

    Attributes:
        rows: (table name, slots, row cells). entries: journal cells.
    """

    state: ReplicaState
    withdrawn: tuple[EpochRange, ...]
    journals: tuple[JournalEntry, ...]
    next_journal: int
    garbage: frozenset[int]
    pinned: int | None
    rows: tuple[tuple[str, Slots, Cells], ...]
    entries: tuple[Cells, ...]


class Flusher:
    """One flush at a time of one store.

    Args:
        tables: those of the store, by name; it may gain some later.

    Attributes:
        flushed: state of the last durable flush. tallies: table name -> what stands on disk of it.
        erased: journal numbers whose cells are gone from disk.
        empty: table name -> slots without a row and without a cell on disk. waiting: those whose cell waits there.
    """

    def __init__(self, durable: Durable, tables: Mapping[str, Table]) -> None:
        self.flushed: ReplicaState | None = None
        self.tallies: dict[str, TableEntry] = {}
        self.erased: set[int] = set()
        self.empty: dict[str, Slots] = {}
        self.waiting: dict[str, Slots] = {}
        self._durable = durable
        self._capture: Capture | None = None
        self._tables = tables
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a flush is under way, or its failure not yet told."""
        return self._capture is not None

    def recover(self, manifest: Manifest) -> None:
        """Go on from what a manifest describes, once its rows are read."""
        self.flushed = manifest.state
        self.tallies = {entry.name: entry for entry in manifest.tables}
        self._number()
        for name, table in self._tables.items():
            self.waiting[name] = np.flatnonzero(table.arena.hashes[: table.arena.top] == 0)

    def drop_empty(self, bound: int) -> None:
        """Give up keys without a row, once neither a peer nor an undo can need them any more."""
        for name, table in self._tables.items():
            empty, waiting = self.empty.pop(name, _NONE), self.waiting.get(name, _NONE)
            kept = table.remove(empty)
            old = table.arena.arrivals.take(waiting) < bound
            table.arena.dirty[waiting[old]] = True  # the next flush takes their cells from the disk
            self.waiting[name] = np.concatenate((waiting[~old], kept))

    def begin(self, state: ReplicaState, directory: JournalDirectory) -> None:
        """Capture this moment and commit it, in the background where the keeper allows it."""
        assert not self.busy, "one flush at a time"
        self._number()
        self._capture = self._captured(state, directory)
        if self._durable.background:
            self._thread = threading.Thread(target=self._run, name="ekko-flush", daemon=True)
            self._thread.start()

    def poll(self) -> bool:
        """Whether no flush is under way; raises what went wrong in the one that just ended."""
        if self._capture is None:
            return True
        if self._thread is None:
            self._run()
        elif self._thread.is_alive():
            return False
        return self._ended()

    def wait(self) -> bool:
        """Let the flush under way end; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
        return self.poll()

    def _ended(self) -> bool:
        self._thread, self._capture = None, None
        failure, self._failure = self._failure, None
        if failure is not None:
            self._mark_all_dirty()
            raise failure
        return True

    def _mark_all_dirty(self) -> None:
        """After a failed commit: which of the captured rows and entries still are what they were is not known."""
        for table in self._tables.values():
            table.arena.dirty[: table.arena.top] = True
            table.pool.dirty[: table.pool.top] = table.pool.places[: table.pool.top] != 0

    def _number(self) -> None:
        """Give every table its number on disk."""
        for name, table in self._tables.items():
            tally = self.tallies.setdefault(name, TableEntry(name, len(self.tallies), table.declaration.dim))
            table.source.number = tally.number

    def _captured(self, state: ReplicaState, directory: JournalDirectory) -> Capture:
        directory.garbage -= self.erased
        self.erased.clear()
        rows = tuple((name, *self._dirty_rows(name, table)) for name, table in self._tables.items())
        entries = [
            cells for name, table in self._tables.items() for cells in self._dirty_entries(name, table, directory)
        ]
        return Capture(
            state=replace(state, voids=directory.voids, bound=directory.bound),
            withdrawn=directory.withdrawn,
            journals=directory.entries(),
            next_journal=directory.next_number,
            garbage=frozenset(directory.garbage),
            pinned=directory.pinned,
            rows=rows,
            entries=tuple(entries),
        )

    def _dirty_rows(self, name: str, table: Table) -> tuple[Slots, Cells]:
        arena = table.arena
        slots = np.flatnonzero(arena.dirty[: arena.top])
        arena.dirty[: arena.top] = False
        keys = self._copy(arena.keys, slots)
        columns = (self._copy(arena.arrivals, slots), self._copy(arena.rows, slots))
        present = self._durable.allocate((len(slots),), np.bool_)
        return slots, Cells(rows_prefix(self.tallies[name].number), keys, columns, present)

    def _dirty_entries(self, name: str, table: Table, directory: JournalDirectory) -> list[Cells]:
        pool = table.pool
        dirty = np.flatnonzero(pool.dirty[: pool.top])
        pool.dirty[: pool.top] = False
        labels = pool.labels.take(dirty)
        cells = []
        for label in distinct(labels).tolist():
            entries = dirty[labels == label]
            owners = pool.slots.take(entries).astype(np.int64) - 1
            places = pool.places.take(entries).astype(np.int64) - 1
            prefix = journal_prefix(directory.number_of(label), self.tallies[name].number)
            present = self._durable.allocate((len(entries),), np.bool_)
            present[:] = True
            cells.append(
                Cells(prefix, self._copy(table.arena.keys, owners), (self._copy(pool.values, places),), present)
            )
        return cells

    def _copy(self, source: Array, places: Slots) -> Array:
        target = self._durable.allocate((len(places), *source.shape[1:]), source.dtype)
        np.take(source, places, axis=0, mode="clip", out=target)
        return target

    def _run(self) -> None:
        try:
            self._commit()
        except BaseException as error:  # noqa: BLE001 - told to the writer by `poll`
            self._failure = error

    def _commit(self) -> None:
        capture = self._capture
        assert capture is not None
        tallies = dict(self.tallies)
        hashes = []
        for name, slots, cells in capture.rows:
            cells.present[:] = nonzero_rows(cells.columns[1]) | (cells.columns[0] >= capture.state.bound)
            new = hashes_of(name, cells.keys, cells.columns[1])
            old = self._tables[name].arena.hashes.take(slots)
            tallies[name] = _tallied(tallies[name], old, new)
            hashes.append(new)
        manifest = Manifest(
            state=capture.state,
            tables=tuple(tallies.values()),
            withdrawn=capture.withdrawn,
            journals=capture.journals,
            next_journal=capture.next_journal,
            garbage=tuple(sorted(capture.garbage)),
            pinned=capture.pinned,
        )
        row_cells = tuple(cells for _, _, cells in capture.rows)
        self._durable.commit(Batch((*capture.entries, *row_cells), encode_manifest(manifest)))
        self.tallies = tallies
        for (name, slots, cells), new in zip(capture.rows, hashes, strict=True):
            self._tables[name].arena.hashes[slots] = new
            waits = cells.present & (new == 0)
            self.empty[name] = np.concatenate((self.empty.get(name, _NONE), slots[~cells.present]))
            self.waiting[name] = np.concatenate((self.waiting.get(name, _NONE), slots[waits]))
        self.flushed = capture.state
        for number in capture.garbage:
            self._durable.erase(journal_prefix(number))
        self.erased = set(capture.garbage)


def hashes_of(table: str, keys: UInt64s, rows: Int32s) -> UInt64s:
    """`schemas.hashing.row_hashes` in runs that stay in the cache."""
    hashes = np.empty(len(keys), dtype=np.uint64)
    for start in range(0, len(keys), _HASHED_AT_ONCE):
        part = slice(start, start + _HASHED_AT_ONCE)
        hashes[part] = row_hashes(table, keys[part], rows[part])
    return hashes


def _tallied(tally: TableEntry, old: UInt64s, new: UInt64s) -> TableEntry:
    """A table's tally once rows with the hashes `old` are replaced by ones with `new` (0: no row)."""
    rows = tally.rows + int(np.count_nonzero(new)) - int(np.count_nonzero(old))
    change = int(new.sum(dtype=np.uint64)) - int(old.sum(dtype=np.uint64))
    return replace(tally, rows=rows, checksum=(tally.checksum + change) % (1 << 64))
