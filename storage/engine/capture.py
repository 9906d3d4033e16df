"""One moment of a table, copied in steps while the table goes on changing.

What is dirty when a capture begins is only marked as pending: no row is copied then, so a flush holds up no apply,
however much it has to write. From there on rows and entries are copied a few thousand at a time, and before anything
changes a pending one, it is copied first. Either way the copy is what stood there when the capture began.

What is copied stays marked until the capture ends: what became durable is dirty no more then, and all of it is dirty
again if nothing did. A flag goes where its value goes, so whatever was freed, used again or united in between is right.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s
from ekko.storage.engine.arena import Arena
from ekko.storage.engine.distinct import distinct
from ekko.storage.engine.hashes import entry_hashes_of
from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal import JournalPool
from ekko.storage.engine.memory import Array

Allocate = Callable[[Sequence[int], npt.DTypeLike], npt.NDArray[Any]]

_CHANGED, _PENDING, _COPIED = 1, 2, 4
"""Of a dirty flag: changed since the last capture began; before it, and not copied yet; copied, and the same since."""


class Copies:
    """Copies of rows of some arrays, in the order in which they were made.

    Attributes:
        numbers: int64[count], of which slot or entry each is a copy. keys: uint64[count], whose it is.
        columns: the copied values, one array a source.
    """

    def __init__(self, count: int, sources: Sequence[Array], allocate: Allocate) -> None:
        self.numbers = np.empty(count, dtype=np.int64)
        self.keys: UInt64s = allocate((count,), np.uint64)
        self.columns = tuple(allocate((count, *source.shape[1:]), source.dtype) for source in sources)
        self._sources = sources
        self._filled = 0

    def add(self, numbers: Slots, keys: UInt64s, places: Slots) -> tuple[Array, ...]:
        """Copy `places` of the sources; the copies."""
        part = slice(self._filled, self._filled + len(numbers))
        self._filled += len(numbers)
        self.numbers[part], self.keys[part] = numbers, keys
        for source, target in zip(self._sources, self.columns, strict=True):
            np.take(source, places, axis=0, mode="clip", out=target[part])
        return tuple(column[part] for column in self.columns)


class TableCapture:
    """Begins with its making; `step` until it is `whole`, and tell it of every change until then; `end` it in any case.

    Attributes:
        rows: copies of arrivals and rows, by slot. journals: label -> copies of entries' values, by entry.
        tallies: of all journals, the copies and what is on disk already; right once the capture is whole.
    """

    def __init__(self, table: str, arena: Arena, pool: JournalPool, allocate: Allocate) -> None:
        self._table, self._arena, self._pool = table, arena, pool
        self._slots = _marked(arena.dirty[: arena.top])
        self._entries = _marked(pool.dirty[: pool.top])
        self._done = 0
        self.rows = Copies(len(self._slots), (arena.arrivals, arena.rows), allocate)
        labels = pool.labels.take(self._entries)
        self.journals: dict[int, Copies] = {}
        self.tallies = pool.tallies.copy()
        counts = np.bincount(labels)  # sorting them would hold up the applies
        for label in np.flatnonzero(counts).tolist():
            self.journals[label] = Copies(int(counts[label]), (pool.values,), allocate)

    @property
    def whole(self) -> bool:
        """Whether all is copied."""
        return self._done >= len(self._slots) + len(self._entries)

    def step(self, cells: int) -> int:
        """Copy at most so many more rows and entries; how many."""
        start, end, rows = self._done, self._done + cells, len(self._slots)
        self.before_rows(self._slots[start:end])
        self.before_entries(self._entries[max(0, start - rows) : max(0, end - rows)])
        self._done = min(end, rows + len(self._entries))
        return self._done - start

    def before_rows(self, slots: Slots) -> None:
        """Rows of distinct slots are about to change."""
        arena = self._arena
        waiting = slots[arena.dirty.take(slots) == _PENDING]
        if waiting.size:
            self.rows.add(waiting, arena.keys.take(waiting), waiting)
            arena.dirty[waiting] = _COPIED

    def before_entries(self, entries: Slots) -> None:
        """Values, labels or places of distinct entries are about to change, or they are to be given back."""
        pool = self._pool
        waiting = entries[pool.dirty.take(entries) == _PENDING]
        if not waiting.size:
            return
        labels = pool.labels.take(waiting)
        for label in distinct(labels).tolist():
            part = waiting[labels == label]
            owners = pool.slots.take(part).astype(np.int64) - 1
            places = pool.places.take(part).astype(np.int64) - 1
            keys = self._arena.keys.take(owners)
            (values,) = self.journals[label].add(part, keys, places)
            hashes = entry_hashes_of(self._table, keys, values)
            self.tallies.replace(label, pool.settle(part, label, hashes), hashes)
        pool.dirty[waiting] = _COPIED

    def end(self, *, durable: bool) -> None:
        """What was copied is on disk now; if it is not `durable`, all that was dirty when this began is so again."""
        for flags in (self._arena.dirty[: self._arena.top], self._pool.dirty[: self._pool.top]):
            dirty = flags.view(np.bool_)
            if durable:
                np.equal(flags, _CHANGED, out=dirty)
            else:
                np.not_equal(flags, 0, out=dirty)


def _marked(flags: Array) -> Slots:
    """Mark what is dirty as pending; which these are."""
    np.add(flags, flags, out=flags)  # vectorised, which shifting bytes is not
    marked: Slots = np.flatnonzero(flags != 0)  # of truth values it takes a sixth of the time that bytes take
    return marked
