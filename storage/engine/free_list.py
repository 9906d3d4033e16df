"""Numbers handed out in ascending order and taken back: slots of rows, journal entries, places of their values."""

import numpy as np

from ekko.schemas.errors import MemoryExhausted
from ekko.storage.engine.index import Slots
from ekko.storage.engine.memory import Array


class FreeList:
    """Numbers from 0 on; `top`, beyond which none was ever used, stands in shared memory for readers.

    Args:
        header: shared int64 array; cell: which of its cells holds the top.
        capacity: how many numbers there are.
    """

    def __init__(self, header: Array, cell: int, capacity: int) -> None:
        self._header, self._cell = header, cell
        self._capacity = capacity
        self._freed: list[Slots] = []
        self._free = 0

    @property
    def top(self) -> int:
        """One more than the highest number ever used."""
        return int(self._header[self._cell])

    @property
    def count(self) -> int:
        """Numbers in use."""
        return self.top - self._free

    def take(self, count: int) -> Slots:
        """That many numbers, ascending: freed ones first.

        Raises:
            MemoryExhausted: there are not so many; none is taken.
        """
        if self.count + count > self._capacity:
            raise MemoryExhausted(
                f"there is no room for {count} more beside {self.count}, of {self._capacity} at most",
                hint="give the store more --memory, or fewer --shards",
            )
        taken = []
        while count and self._freed:
            part = self._freed.pop()
            taken.append(part[:count])
            if len(part) > count:
                self._freed.append(part[count:])
            count -= len(taken[-1])
            self._free -= len(taken[-1])
        top = self.top
        self._header[self._cell] = top + count
        fresh = np.arange(top, top + count, dtype=np.int64)
        return np.sort(np.concatenate((*taken, fresh))) if taken else fresh

    def give(self, numbers: Slots) -> None:
        """Take numbers back."""
        if len(numbers):
            ascending = (numbers[1:] > numbers[:-1]).all()
            self._freed.append(numbers if ascending else np.sort(numbers))
            self._free += len(numbers)


def adjacent(numbers: Slots) -> slice | None:
    """The numbers as a slice if they lie side by side (as fresh ones do), else None."""
    first = int(numbers[0])
    return slice(first, first + len(numbers)) if int(numbers[-1]) - first == len(numbers) - 1 else None
