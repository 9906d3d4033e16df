"""The rows of one table: an arena of slots with one column a property, all in shared memory."""

from collections.abc import Mapping

import numpy as np

from ekko.schemas.hashing import UInt64s
from ekko.storage.engine.free_list import FreeList
from ekko.storage.engine.index import ENTRY_BYTES, Slots
from ekko.storage.engine.memory import Array, Column
from ekko.storage.engine.pinned import COLUMN_BYTES as PINNED_BYTES

_COLUMN_BYTES = 8 + 4 + 4 + 4 + 4 + 1 + 8 + PINNED_BYTES

_FREE = -1


def row_bytes(dim: int) -> int:
    """Memory of a row with its columns and its share of the index."""
    return dim * 4 + _COLUMN_BYTES + ENTRY_BYTES


def arena_columns(capacity: int, dim: int) -> list[Column]:
    """Arrays of an arena for at most `capacity` rows of `dim` values."""
    return [
        Column("arena_header", "<i8", (1,)),
        Column("rows", "<i4", (capacity, dim)),
        Column("keys", "<u8", (capacity,)),
        Column("versions", "<u4", (capacity,)),
        Column("heads", "<i4", (capacity,)),
        Column("newest", "<i4", (capacity,)),
        Column("arrivals", "<i4", (capacity,)),
        Column("dirty", "|u1", (capacity,)),
        Column("hashes", "<u8", (capacity,)),
    ]


class Arena:
    """Slots, each a key with its row.

    Attributes:
        rows: int32[capacity, dim], the current rows. keys: uint64, whose row it is.
        versions: uint32, odd while the row or its journal entries are being written; see `reading`.
        heads: newest journal entry of the slot + 1, 0 for none. newest: that entry's label + 1.
        arrivals: last epoch in which a delta of the key arrived, -1 while the slot is free.
        dirty: 0 as long as it is on disk just as it is, see `capture`.
        hashes: uint64, hash of the row as last made durable (0: no row on disk).
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._slots = FreeList(arrays["arena_header"], 0, len(arrays["keys"]))
        self.rows = arrays["rows"]
        self.keys = arrays["keys"]
        self.versions = arrays["versions"]
        self.heads = arrays["heads"]
        self.newest = arrays["newest"]
        self.arrivals = arrays["arrivals"]
        self.dirty = arrays["dirty"]
        self.hashes = arrays["hashes"]

    @property
    def top(self) -> int:
        """Slots ever used: none lies beyond. Free ones among them have zero rows and no journal entries."""
        return self._slots.top

    @property
    def count(self) -> int:
        """Slots in use: rows, and keys without a row that journals still know."""
        return self._slots.count

    def add(self, keys: UInt64s) -> Slots:
        """Give out a slot for every key (distinct, absent); their rows are zero."""
        slots = self._slots.take(len(keys))
        self.keys[slots] = keys
        self.arrivals[slots] = 0
        return slots

    def in_use(self, slots: Slots) -> Slots:
        """Those of the slots that are not free."""
        used: Slots = slots[self.arrivals.take(slots) >= 0]
        return used

    def free(self, slots: Slots) -> None:
        """Take back slots with zero rows that no index and no journal names any more."""
        versions = self.begin_write(slots)
        self.keys[slots] = ~self.keys.take(slots)  # so that a reader who is late does not take it for its own
        self.arrivals[slots] = _FREE
        self.heads[slots] = 0
        self.newest[slots] = 0
        self.end_write(slots, versions)
        self._slots.give(slots)

    def begin_write(self, slots: Slots) -> Array:
        """Make the versions of distinct slots odd; hand the result to `end_write`."""
        versions = self.versions.take(slots)
        versions += np.uint32(1)
        self.versions[slots] = versions
        return versions

    def end_write(self, slots: Slots, versions: Array) -> None:
        """Make the versions even again."""
        versions += np.uint32(1)
        self.versions[slots] = versions
