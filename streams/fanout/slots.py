"""uint64 key -> slot number of rows that wait, as sorted arrays: the fan-out imports no storage engine for it."""

import numpy as np

from ekko.schemas.hashing import UInt64s
from ekko.streams.fanout.rows import Indices

_SMALL = 4096

SLOT_BYTES = 16
"""Memory of a key and its slot number."""


class SortedSlots:
    """Slots 0, 1, 2, ... given to keys in the order in which they come; keys are never removed.

    Two sorted levels: new keys are merged into a small one, and that into the large one once it has grown to an eighth
    of it, so a key is moved O(log N) times, 16 bytes each time, however wide its row is.
    """

    def __init__(self) -> None:
        empty = np.empty(0, np.uint64), np.empty(0, np.intp)
        self._levels: list[tuple[UInt64s, Indices]] = [empty, empty]
        self._count = 0

    @classmethod
    def of(cls, keys: UInt64s) -> "SortedSlots":
        """Slots given to these keys (distinct) in their order."""
        slots, order = cls(), np.argsort(keys)
        slots._levels[0], slots._count = (keys[order], order), len(keys)
        return slots

    def __len__(self) -> int:
        return self._count

    def find(self, keys: UInt64s) -> Indices:
        """The slot of every key, -1 where it has none: intp[N]."""
        slots = np.full(len(keys), -1, np.intp)
        for known, numbers in self._levels:
            if len(known):
                at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
                slots = np.where(known[at] == keys, numbers[at], slots)
        return slots

    def find_or_add(self, keys: UInt64s) -> Indices:
        """The slot of every key (strictly rising), giving new slots to those that have none: intp[N]."""
        slots = self.find(keys)
        new = np.flatnonzero(slots < 0)
        if len(new):
            slots[new] = np.arange(self._count, self._count + len(new))
            self._count += len(new)
            large, small = self._levels
            small = _merge(small, (keys[new], slots[new]))
            if len(small[0]) > max(_SMALL, len(large[0]) // 8):
                large, small = _merge(large, small), (np.empty(0, np.uint64), np.empty(0, np.intp))
            self._levels = [large, small]
        return slots

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(known.nbytes + numbers.nbytes for known, numbers in self._levels)


def _merge(one: tuple[UInt64s, Indices], other: tuple[UInt64s, Indices]) -> tuple[UInt64s, Indices]:
    at = np.searchsorted(one[0], other[0])
    return np.insert(one[0], at, other[0]), np.insert(one[1], at, other[1])
