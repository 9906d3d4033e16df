"""Making a store durable without holding up its applies.

The writer only marks what changed since the last flush and copies it in steps (capture); hashing, sorting, writing and
syncing happen in the background, and rows, journals, positions, voids and tallies become durable in one commit.

A zero row is no row, yet its arrival tag tells peers that the key has changed: its cell leaves the disk only when the
epoch it arrived in lies below the store's bound, to which no peer goes back.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ekko.schemas.epochs import EpochRange
from ekko.schemas.hashing import UInt64s
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.durable import Batch, Cells, Durable
from ekko.storage.disk.manifest import JournalEntry, JournalTally, Manifest, TableEntry, encode_manifest
from ekko.storage.engine.capture import Copies, TableCapture
from ekko.storage.engine.cells import journal_prefix, rows_prefix
from ekko.storage.engine.distinct import distinct
from ekko.storage.engine.hashes import hashes_of
from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal_directory import JournalDirectory
from ekko.storage.engine.reading import Bools, nonzero_rows
from ekko.storage.engine.table import Table

_COPIED_AT_ONCE = 32_768
"""Rows and entries copied between two applies: some milliseconds."""

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Capture:
    """One moment of a store: everything a commit needs, once the tables are whole.

    Attributes:
        numbers: label -> the number under which the journal's entries are written.
    """

    state: ReplicaState
    withdrawn: tuple[EpochRange, ...]
    journals: tuple[JournalEntry, ...]
    next_journal: int
    garbage: frozenset[int]
    pinned: int | None
    numbers: Mapping[int, int]
    tables: Mapping[str, TableCapture]


@dataclass(frozen=True, slots=True)
class Part:
    """What a commit writes of one table, and what is to be remembered of it.

    Attributes:
        slots: int64[N], whose rows these are. present: bool[N], which have a cell from now on. hashes: uint64[N].
    """

    cells: tuple[Cells, ...]
    slots: Slots
    present: Bools
    hashes: UInt64s
    tally: TableEntry


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
        self._copying: list[str] = []
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
            waiting = distinct(table.arena.in_use(waiting))
            old = table.arena.arrivals.take(waiting) < bound
            table.arena.dirty[waiting[old]] = 1  # the next flush takes their cells from the disk
            self.waiting[name] = np.concatenate((waiting[~old], kept))

    def begin(self, state: ReplicaState, directory: JournalDirectory) -> None:
        """Hold on to this moment; `poll` copies it and has it committed, in the background if the keeper allows it."""
        assert not self.busy, "one flush at a time"
        self._number()
        self._capture = self._captured(state, directory)
        self._copying = list(self._capture.tables)
        self._copy(self._capture)

    def poll(self) -> bool:
        """Whether no flush is under way; raises what went wrong in the one that just ended."""
        if self._capture is None:
            return True
        if self._copying:
            self._copy(self._capture)
            return False
        if self._thread is None:
            self._run()
        elif self._thread.is_alive():
            return False
        return self._ended()

    def wait(self) -> bool:
        """Let the flush under way end; raises what went wrong."""
        while self._copying and self._capture is not None:
            self._copy(self._capture)
        if self._thread is not None:
            self._thread.join()
        return self.poll()

    def give_up(self) -> bool:
        """Forget a flush that is still being copied, as if it had not begun; whether there was one.

        One that is copied is committed: it costs no change any more.
        """
        if not self._copying:
            return False
        while self._copying:
            self._tables[self._copying.pop()].release_capture()
        self._end(durable=False)
        self._durable.discard()
        return True

    def _copy(self, capture: Capture) -> None:
        """Copy some more of a capture; once it is whole, begin to commit it."""
        budget = _COPIED_AT_ONCE
        while self._copying and budget > 0:
            table = capture.tables[self._copying[0]]
            budget -= table.step(budget)
            if table.whole:
                self._tables[self._copying.pop(0)].release_capture()
        if not self._copying and self._durable.background:
            self._thread = threading.Thread(target=self._run, name="ekko-flush", daemon=True)
            self._thread.start()

    def _ended(self) -> bool:
        failure, self._thread, self._failure = self._failure, None, None
        self._end(durable=failure is None)
        if failure is not None:
            raise failure
        return True

    def _end(self, *, durable: bool) -> None:
        """Let go of the capture, which is on disk now, or will never be."""
        assert self._capture is not None
        for table in self._capture.tables.values():
            table.end(durable=durable)
        self._capture = None

    def _number(self) -> None:
        """Give every table its number on disk."""
        for name, table in self._tables.items():
            tally = self.tallies.setdefault(name, TableEntry(name, len(self.tallies), table.declaration.dim))
            table.source.number = tally.number

    def _captured(self, state: ReplicaState, directory: JournalDirectory) -> Capture:
        directory.garbage -= self.erased
        self.erased.clear()
        tables = {name: table.capture(self._durable.allocate) for name, table in self._tables.items()}
        labels = {label for table in tables.values() for label in table.journals}
        return Capture(
            state=replace(state, voids=directory.voids, bound=directory.bound),
            withdrawn=directory.withdrawn,
            numbers={label: directory.number_of(label) for label in labels},
            journals=directory.entries(),
            next_journal=directory.next_number,
            garbage=frozenset(directory.garbage),
            pinned=directory.pinned,
            tables=tables,
        )

    def _run(self) -> None:
        try:
            self._commit()
        except BaseException as error:  # noqa: BLE001 - told to the writer by `poll`
            self._failure = error

    def _commit(self) -> None:
        capture = self._capture
        assert capture is not None
        parts = {name: self._part(name, table, capture) for name, table in capture.tables.items()}
        tallies = {**self.tallies, **{name: part.tally for name, part in parts.items()}}
        manifest = Manifest(
            state=capture.state,
            tables=tuple(tallies.values()),
            withdrawn=capture.withdrawn,
            journals=capture.journals,
            next_journal=capture.next_journal,
            garbage=tuple(sorted(capture.garbage)),
            pinned=capture.pinned,
            tallies=self._journal_tallies(capture),
        )
        cells = tuple(cells for part in parts.values() for cells in part.cells)
        self._durable.commit(Batch(cells, encode_manifest(manifest)))
        self.tallies = tallies
        for name, part in parts.items():
            self._tables[name].arena.hashes[part.slots] = part.hashes
            waits = part.present & (part.hashes == 0)
            self.empty[name] = np.concatenate((self.empty.get(name, _NONE), part.slots[~part.present]))
            self.waiting[name] = np.concatenate((self.waiting.get(name, _NONE), part.slots[waits]))
        self.flushed = capture.state
        if capture.garbage:
            self._durable.erase([journal_prefix(number) for number in sorted(capture.garbage)])
        self.erased = set(capture.garbage)

    def _journal_tallies(self, capture: Capture) -> tuple[JournalTally, ...]:
        return tuple(
            JournalTally(label, self.tallies[name].number, *tally)
            for name, table in capture.tables.items()
            for label, tally in table.tallies.items()
        )

    def _part(self, name: str, table: TableCapture, capture: Capture) -> Part:
        """What a commit writes of one table, and what it is to remember."""
        tally = self.tallies[name]
        cells = []
        for label, entries in table.journals.items():
            prefix = journal_prefix(capture.numbers[label], tally.number)
            cells.append(self._cells(prefix, entries, np.ones(len(entries.keys), dtype=np.bool_)))
        arrivals, rows = table.rows.columns
        present = nonzero_rows(rows) | (arrivals >= capture.state.bound)
        cells.append(self._cells(rows_prefix(tally.number), table.rows, present))
        hashes = hashes_of(name, table.rows.keys, rows)
        old = self._tables[name].arena.hashes.take(table.rows.numbers)
        return Part(tuple(cells), table.rows.numbers, present, hashes, _tallied(tally, old, hashes))

    def _cells(self, prefix: bytes, copies: Copies, present: Bools) -> Cells:
        shared = self._durable.allocate(present.shape, np.bool_)
        shared[:] = present
        return Cells(prefix, copies.keys, copies.columns, shared)


def _tallied(tally: TableEntry, old: UInt64s, new: UInt64s) -> TableEntry:
    """A table's tally once rows with the hashes `old` are replaced by ones with `new` (0: no row)."""
    rows = tally.rows + int(np.count_nonzero(new)) - int(np.count_nonzero(old))
    change = int(new.sum(dtype=np.uint64)) - int(old.sum(dtype=np.uint64))
    return replace(tally, rows=rows, checksum=(tally.checksum + change) % (1 << 64))
