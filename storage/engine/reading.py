"""Consistent reads beside a writer, in any thread or process that maps the arrays.

Every slot has a version (a sequence lock): odd while its row or journal entries are written. A reader copies rows
between two looks at the versions and tries again, for those rows only, where they differ. Nobody waits for anybody:
the writer never looks at readers, and a reader repeats a copy at most while its own row is being written.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import StateUnavailable
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.disk.entry_source import EntrySource
from ekko.storage.engine.arena import Arena
from ekko.storage.engine.chains import oldest_since
from ekko.storage.engine.index import KeyIndex, Slots
from ekko.storage.engine.journal import JournalPool
from ekko.storage.engine.memory import Array
from ekko.storage.engine.patience import Patience
from ekko.storage.engine.pinned import PinnedState

Bools = npt.NDArray[np.bool_]

_ROWS_AT_ONCE = 1024
"""Copies this short seldom meet a write; longer ones would try again more often."""


class TableReader:
    """Reads of one table over its shared arrays.

    Args:
        source: reads journal entries that memory has let go; None in another process, which cannot.
    """

    def __init__(self, arrays: Mapping[str, Array], source: EntrySource | None) -> None:
        self._source = source
        self._index = KeyIndex(arrays)
        self._arena = Arena(arrays)
        self._pool = JournalPool(arrays)
        self._pinned = PinnedState(arrays)
        self._dim = self._arena.rows.shape[1]

    def lookup(self, keys: UInt64s, as_of: int | None = None) -> tuple[Int32s, Bools]:
        """Rows of the keys, now or at the start of epoch `as_of`: int32[N, dim] (zero if absent), and bool[N] found.

        Raises:
            NotReady: the writer died while it wrote one of the rows, or of the index.
            StateUnavailable: `as_of` needs journal entries that only the store's own process can read from disk.
        """
        rows = np.empty((len(keys), self._dim), dtype=np.int32)
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            self._settle(keys[part], rows[part], as_of)
        return rows, nonzero_rows(rows)

    def _settle(self, keys: UInt64s, rows: Int32s, as_of: int | None) -> None:
        torn = self._attempt(keys, rows, as_of)
        patience = Patience()
        while torn.size:
            patience.spend("a row")
            again = np.empty((len(torn), self._dim), dtype=np.int32)
            still = self._attempt(keys[torn], again, as_of)
            rows[torn] = again
            torn = torn[still]

    def _attempt(self, keys: UInt64s, rows: Int32s, as_of: int | None) -> Slots:
        """Copy rows; the indices of those that were being written."""
        slots = self._index.find_shared(keys)
        absent = np.flatnonzero(slots < 0)
        if absent.size:
            slots[absent] = 0
        arena = self._arena
        before = arena.versions.take(slots)
        np.take(arena.rows, slots, axis=0, mode="clip", out=rows)
        unread = None if as_of is None else self._overlay(slots, rows, as_of)
        torn = (before & 1 == 1) | (arena.versions.take(slots) != before) | (arena.keys.take(slots) != keys)
        if unread is not None:
            torn[unread] = True
        if absent.size:
            rows[absent] = 0
            torn[absent] = False
        return np.flatnonzero(torn)

    def _overlay(self, slots: Slots, rows: Int32s, as_of: int) -> Slots:
        """Lay what the keys were at the start of `as_of` over their rows; the indices of those that escaped."""
        pool, pinned = self._pool, self._pinned.state == as_of
        entries = self._pinned.entries(slots) if pinned else oldest_since(self._arena, pool, slots, as_of)
        laid = np.flatnonzero(entries >= 0)
        entries = entries[laid]
        places = pool.places.take(entries).astype(np.int64) - 1
        resident = places >= 0
        rows[laid[resident]] = pool.values.take(places[resident], axis=0)
        if pinned and self._pinned.state != as_of:
            return np.arange(len(slots))  # another state was pinned meanwhile
        unread = np.empty(0, dtype=np.int64)
        if not resident.all():
            unread = self._fetch(slots, rows, laid[~resident], pool.labels.take(entries[~resident]))
        # Owner and label of an entry are two looks: between them it may have become another key's.
        reused = pool.slots.take(entries) != slots[laid] + 1
        return np.concatenate((unread, laid[reused]))

    def _fetch(self, slots: Slots, rows: Int32s, wanted: Slots, labels: Array) -> Slots:
        """Rows of the journal entries that only the disk has; the indices of those that are gone from there."""
        if self._source is None:
            raise StateUnavailable(
                "journal entries of that model state are on disk only, out of reach of shared memory",
                hint="ask the store over HTTP",
            )
        escaped = []
        for label in np.unique(labels).tolist():
            part = wanted[labels == label]
            values, found = self._source.look(label, self._arena.keys.take(slots[part]))
            rows[part] = values
            escaped.append(part[~found])
        return np.concatenate(escaped)


def nonzero_rows(rows: Int32s) -> Bools:
    """Which rows are not all zero, bool[N]: an all-zero row is no row.

    Looks at whole rows only where the first value is 0.
    """
    found: Bools = rows[:, 0] != 0
    doubtful = np.flatnonzero(~found)
    if doubtful.size:
        found[doubtful] = rows.take(doubtful, axis=0).any(axis=1)
    return found
