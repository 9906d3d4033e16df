"""Epoch journals of one table: for every slot a chain of entries, newest label first.

J[label][key] is the sum of the key's deltas of epochs before `label` (DESIGN section 5); an entry holds one such row.
The chain of a key makes every question local: what a late delta must be added to (the entries on its way), what the key
was at the start of a state (its oldest entry since), what an undo takes back. The cost follows the entries of the keys
in question, not the number of epochs kept.

A link is right only if the entry it points to belongs to the same slot and has a lower label: so entries may be freed
(and used again) without looking for the links that still point to them.

The values of entries that are durable may be let go under memory pressure; the entry itself (21 bytes) stays, so that
walking a chain never needs the disk.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ekko.schemas.quantize import Int32s
from ekko.storage.engine.free_list import FreeList, adjacent
from ekko.storage.engine.hashes import UInt32s
from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal_tallies import JournalTallies
from ekko.storage.engine.memory import Array, Column
from ekko.storage.engine.scatter import scatter

ENTRY_BYTES = 4 + 4 + 4 + 4 + 4 + 1
"""Memory of an entry without its values."""

Listener = Callable[[Slots], None]
"""Told of distinct slots or entries just before they change."""

_FREED_AT_ONCE = 16_384
"""Entries whose columns stay in the cache while they are looked up and emptied."""

_HEADER_ENTRIES, _HEADER_PLACES = 0, 1


def journal_columns(capacity: int, dim: int) -> list[Column]:
    """Arrays of a journal pool for at most `capacity` entries of `dim` values."""
    return [
        Column("journal_header", "<i8", (2,)),
        Column("entry_values", "<i4", (capacity, dim)),
        Column("entry_slots", "<i4", (capacity,)),
        Column("entry_labels", "<i4", (capacity,)),
        Column("entry_previous", "<i4", (capacity,)),
        Column("entry_places", "<i4", (capacity,)),
        Column("entry_hashes", "<u4", (capacity,)),
        Column("entry_dirty", "|u1", (capacity,)),
    ]


class JournalPool:
    """The entries of all journals of a table.

    Attributes:
        slots: owner + 1, 0 for a free entry. labels: the journal it belongs to.
        previous: next older entry of the slot + 1, 0 for none. dirty: 0 as long as it is on disk just as it is.
        places: where its values stand + 1, 0 if only on disk. values: int32[capacity, dim], by place.
        hashes: of its value as it was last copied for a commit, 0 if it never was. tallies: their sums, by label.
        before_change: told of distinct entries before their values change or they are given back.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.values = arrays["entry_values"]
        self.slots = arrays["entry_slots"]
        self.labels = arrays["entry_labels"]
        self.previous = arrays["entry_previous"]
        self.places = arrays["entry_places"]
        self.hashes = arrays["entry_hashes"]
        self.dirty = arrays["entry_dirty"]
        self.entries = FreeList(arrays["journal_header"], _HEADER_ENTRIES, len(self.slots))
        self.room = FreeList(arrays["journal_header"], _HEADER_PLACES, len(self.values))
        self.tallies = JournalTallies()
        self.before_change: Listener = nobody

    @property
    def top(self) -> int:
        """Entries ever used: none lies beyond."""
        return self.entries.top

    @property
    def nbytes(self) -> int:
        """Memory of entries and resident values."""
        return self.entries.count * ENTRY_BYTES + self.resident_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory of resident values."""
        return self.room.count * int(self.values.shape[1]) * 4

    def add(self, slots: Slots, label: int, previous: Array, source: Int32s, at: Slots) -> Slots:
        """New entries with the values `source[at]`; the owner is written last, for it makes an entry visible."""
        entries = self.entries.take(len(slots))
        self.places[entries] = self._store(source, at) + 1
        self.labels[entries] = label
        self.previous[entries] = previous
        self.dirty[entries] = 1
        self.slots[entries] = slots + 1
        return entries

    def read(self, entries: Slots) -> Int32s:
        """Values of resident entries, int32[N, dim]; anything for the others."""
        values: Int32s = self.values.take(self.places.take(entries).astype(np.int64) - 1, axis=0, mode="clip")
        return values

    def add_to(self, entries: Slots, changes: Int32s) -> None:
        """Add to the values of distinct resident entries."""
        self.before_change(entries)
        places = self.places.take(entries).astype(np.int64) - 1
        values = self.values.take(places, axis=0)
        values += changes
        scatter(self.values, places, values)
        self.dirty[entries] = 1

    def settle(self, entries: Slots, label: int, hashes: UInt32s) -> UInt32s:
        """Distinct entries of one journal are read or copied, with values of these hashes; their hashes before."""
        before: UInt32s = self.hashes.take(entries)
        self.tallies.replace(label, before, hashes)
        self.hashes[entries] = hashes
        return before

    def bring_in(self, entries: Slots, values: Int32s) -> None:
        """Make entries resident with values read from disk."""
        self.places[entries] = self._store(values, np.arange(len(entries))) + 1

    def let_go(self, entries: Slots) -> None:
        """Forget the values of durable entries."""
        places = self.places.take(entries).astype(np.int64) - 1
        self.places[entries] = 0
        self.room.give(places)

    def free(self, entries: Slots) -> None:
        """Give distinct entries back."""
        places = np.empty(len(entries), dtype=np.int64)
        for start in range(0, len(entries), _FREED_AT_ONCE):
            part = entries[start : start + _FREED_AT_ONCE]
            self.before_change(part)
            places[start : start + len(part)] = self.places.take(part)
            self.tallies.remove(self.labels.take(part), self.hashes.take(part))
            for column in (self.slots, self.hashes, self.dirty, self.places):
                column[part] = 0
        self.room.give(places[places > 0] - 1)
        self.entries.give(entries)

    def select(self, first: int, last: int) -> Slots:
        """Entries with first <= label <= last."""
        labels = self.labels[: self.top]
        return np.flatnonzero((labels >= first) & (labels <= last) & (self.slots[: self.top] != 0))

    def follow(self, links: Array, slots: Slots, below: Array) -> Slots:
        """Entries that `links` (entry + 1) point to, -1 where the link is none or outlived its entry.

        Args:
            slots: the slot every chain belongs to.
            below: labels must be lower than this.
        """
        entries = links.astype(np.int64) - 1
        real = np.maximum(entries, 0)
        right = (self.slots.take(real) == slots + 1) & (self.labels.take(real) < below) & (entries >= 0)
        return np.where(right, real, -1)

    def _store(self, source: Int32s, at: Slots) -> Slots:
        """Copy `source[at]` to free places."""
        places = self.room.take(len(at))
        if not len(at):
            return places
        side_by_side = adjacent(places)
        if side_by_side is None:
            scatter(self.values, places, source.take(at, axis=0))
        else:
            source.take(at, axis=0, mode="clip", out=self.values[side_by_side])
        return places


def nobody(_: Slots) -> None:
    """A `Listener` that does not care."""
