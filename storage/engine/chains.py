"""Walking the journal chains of many keys at once."""

from dataclasses import dataclass

import numpy as np

from ekko.storage.engine.arena import Arena
from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal import JournalPool
from ekko.storage.engine.memory import Array

_ABOVE_ALL = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Later:
    """What the chains of some slots hold after a label.

    Attributes:
        owners, entries: pairs (index of the slot, entry) of every entry with a greater label.
        oldest: int64[N], each slot's oldest such entry, -1 for none.
        reached: int64[N], the first entry with label <= the given one, -1 for none.
    """

    owners: Slots
    entries: Slots
    oldest: Slots
    reached: Slots


def later_entries(arena: Arena, pool: JournalPool, slots: Slots, label: int) -> Later:
    """Walk the chains of distinct `slots` from their heads down to `label`."""
    oldest = np.full(len(slots), -1, dtype=np.int64)
    reached = oldest.copy()
    owners: list[Slots] = []
    entries: list[Slots] = []
    walking = np.arange(len(slots))
    links, below = arena.heads.take(slots), np.full(len(slots), _ABOVE_ALL)
    while walking.size:
        found = pool.follow(links, slots[walking], below)
        labels = np.where(found >= 0, pool.labels.take(np.maximum(found, 0)), -1)
        arrived = (found >= 0) & (labels <= label)
        reached[walking[arrived]] = found[arrived]
        onward = labels > label
        walking, found, below = walking[onward], found[onward], labels[onward].astype(np.int64)
        oldest[walking] = found
        owners.append(walking)
        entries.append(found)
        links = pool.previous.take(found)
    return Later(_joined(owners), _joined(entries), oldest, reached)


def oldest_since(arena: Arena, pool: JournalPool, slots: Slots, label: int) -> Slots:
    """Every slot's oldest entry with a label >= `label`, -1 for none: what the key was at the start of that state."""
    return later_entries(arena, pool, slots, label - 1).oldest


def label_of_entries(pool: JournalPool, entries: Slots) -> Array:
    """Labels + 1 of entries, 0 where the entry is -1."""
    return np.where(entries >= 0, pool.labels.take(np.maximum(entries, 0)) + 1, 0)


def _joined(parts: list[Slots]) -> Slots:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
