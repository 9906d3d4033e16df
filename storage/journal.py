"""Epoch journals of one table: for every slot a chain of entries, newest label first.

J[label][key] is the sum of the key's deltas of epochs before `label` (DESIGN section 5); an entry holds one such row.
The chain of a key makes every question local: what a late delta must be added to (the entries on its way), what the key
was at the start of a state (its oldest entry since), what an undo takes back. The cost follows the entries of the keys
in question, not the number of epochs kept.

A link is right only if the entry it points to belongs to the same slot and has a lower label: so entries may be freed
(and used again) without looking for the links that still point to them.
"""

from collections.abc import Mapping

import numpy as np

from ekko.schemas.quantize import Int32s
from ekko.storage.index import Slots
from ekko.storage.memory import Array, Column

_COLUMN_BYTES = 4 + 4 + 4 + 1
_HEADER_TOP = 0


def entry_bytes(dim: int) -> int:
    """Memory of a journal entry."""
    return dim * 4 + _COLUMN_BYTES


def journal_columns(capacity: int, dim: int) -> list[Column]:
    """Arrays of a journal pool for at most `capacity` entries of `dim` values."""
    return [
        Column("journal_header", "<i8", (1,)),
        Column("entry_values", "<i4", (capacity, dim)),
        Column("entry_slots", "<i4", (capacity,)),
        Column("entry_labels", "<i4", (capacity,)),
        Column("entry_previous", "<i4", (capacity,)),
        Column("entry_dirty", "|b1", (capacity,)),
    ]


class JournalPool:
    """The entries of all journals of a table.

    Attributes:
        values: int32[capacity, dim]. slots: owner + 1, 0 for a free entry. labels: the journal it belongs to.
        previous: next older entry of the slot + 1, 0 for none. dirty: not yet durable.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._header = arrays["journal_header"]
        self.values = arrays["entry_values"]
        self.slots = arrays["entry_slots"]
        self.labels = arrays["entry_labels"]
        self.previous = arrays["entry_previous"]
        self.dirty = arrays["entry_dirty"]
        self._free = np.empty(0, dtype=np.int64)

    @property
    def top(self) -> int:
        """Entries ever used: none lies beyond."""
        return int(self._header[_HEADER_TOP])

    @property
    def capacity(self) -> int:
        """Entries there can be."""
        return len(self.slots)

    @property
    def count(self) -> int:
        """Entries in use."""
        return self.top - len(self._free)

    def allocate(self, count: int) -> Slots:
        """Entries to be filled: freed ones first, in ascending order."""
        reused = self._free[: min(count, len(self._free))]
        self._free = self._free[len(reused) :]
        top = self.top
        fresh = np.arange(top, top + count - len(reused), dtype=np.int64)
        self._header[_HEADER_TOP] = top + len(fresh)
        return np.concatenate((reused, fresh)) if len(reused) else fresh

    def fill(self, entries: Slots, slots: Slots, label: int, previous: Array, values: Int32s) -> None:
        """Write new entries; the owner is written last, for it makes an entry visible."""
        if len(entries) and entries[-1] - entries[0] == len(entries) - 1:
            self.values[entries[0] : entries[-1] + 1] = values
        else:
            self.values[entries] = values
        self.labels[entries] = label
        self.previous[entries] = previous
        self.dirty[entries] = True
        self.slots[entries] = slots + 1

    def free(self, entries: Slots) -> None:
        """Give entries back."""
        self.slots[entries] = 0
        self.dirty[entries] = False
        self._free = np.sort(np.concatenate((self._free, entries)))

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
