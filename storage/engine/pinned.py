"""The pinned state: what every key was at its start, one look away for readers, and always in memory.

The overlay copies nothing. A column holds each slot's oldest journal entry since the pinned state, so late deltas and
undo reach the values as they reach any journal entry; what is kept here is only which entry it is, and the pool never
lets go of the values of such entries. So a read of the pinned state takes one gather more than a read of now, in other
processes too, however many epochs lie between.
"""

from collections.abc import Mapping

import numpy as np

from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal import JournalPool
from ekko.storage.engine.memory import Array, Column

COLUMN_BYTES = 4
"""Memory a row, once a state is pinned."""


def pinned_columns(capacity: int) -> list[Column]:
    """Arrays of the pinned state for at most `capacity` rows."""
    return [Column("pinned_header", "<i8", (1,)), Column("pinned_entries", "<i4", (capacity,))]


class PinnedState:
    """Oldest journal entry + 1 of every slot since the pinned state, 0 where there is none: the row itself counts.

    One writer; readers anywhere, who compare `state` before and after.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._header = arrays["pinned_header"]
        self._entries = arrays["pinned_entries"]
        self._count = 0

    @property
    def state(self) -> int | None:
        """The pinned model state."""
        state = int(self._header[0]) - 1
        return None if state < 0 else state

    @property
    def count(self) -> int:
        """Entries whose values stay in memory for it."""
        return self._count

    def entries(self, slots: Slots) -> Slots:
        """The entry of every slot, -1 for none."""
        return self._entries.take(slots).astype(np.int64) - 1

    def holds(self, pool: JournalPool, entries: Slots) -> Array:
        """Which entries are pinned, bool[N]."""
        if self.state is None:
            return np.zeros(len(entries), dtype=np.bool_)
        owners = pool.slots.take(entries).astype(np.int64) - 1
        held: Array = self._entries.take(np.maximum(owners, 0)) == entries + 1
        return held

    def pin(self, state: int, pool: JournalPool, top: int) -> Slots:
        """Take every slot's oldest entry since `state`; the entries taken. `top`: slots in use lie below.

        Newer labels are written first, so that the oldest one of a slot stays.
        """
        self._header[0] = 0
        self._entries[:top] = 0
        entries = pool.select(state, np.iinfo(np.int32).max)
        labels = pool.labels.take(entries)
        present = np.flatnonzero(np.bincount(labels - state)) + state
        for label in present[::-1].tolist():
            part = entries[labels == label]
            self._entries[pool.slots.take(part).astype(np.int64) - 1] = part + 1
        pinned = self._entries[:top]
        taken: Slots = pinned[pinned != 0].astype(np.int64) - 1
        self._count = len(taken)
        self._header[0] = state + 1
        return taken

    def rename(self, state: int | None) -> None:
        """Call the pinned state by another name (it was undone as far as that state), or pin none any more."""
        self._header[0] = 0 if state is None else state + 1
        self._count = 0 if state is None else self._count

    def offer(self, pool: JournalPool, slots: Slots, entries: Slots, label: int) -> None:
        """New entries with `label` of distinct slots: they count if it is the oldest one since the pinned state."""
        state = self.state
        if state is None or label < state:
            return
        pinned = self.entries(slots)
        older = (pinned < 0) | (pool.labels.take(np.maximum(pinned, 0)) > label)
        self._count += int((pinned < 0).sum())
        self._entries[slots[older]] = entries[older] + 1

    def undo(self, pool: JournalPool, slots: Slots, first: int, last: int, after: Slots | None) -> None:
        """Entries of `slots` in journals first..last go; what follows them (entry, or None for nothing) counts then."""
        state = self.state
        if state is None or last < state:
            return
        pinned = self.entries(slots)
        labels = pool.labels.take(np.maximum(pinned, 0))
        gone = np.flatnonzero((pinned >= 0) & (labels >= first) & (labels <= last))
        if after is None:
            self._count -= len(gone)
            self._entries[slots[gone]] = 0
        else:
            self._entries[slots[gone]] = after[gone] + 1

    def replace(self, slots: Slots, before: Slots, after: Slots) -> None:
        """Of distinct slots the entries `before` were merged into `after`."""
        if self.state is None:
            return
        moved = self.entries(slots) == before
        self._entries[slots[moved]] = after[moved] + 1
