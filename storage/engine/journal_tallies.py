"""What a table's journals on disk must add up to: for every label, the number of entries and the sum of their hashes.

Hashes (see `hashes.entry_hashes_of`) are of entries as they were last copied for a commit; 0 stands for one that never
was, and is not counted.
"""

from collections.abc import Mapping

import numpy as np

from ekko.storage.engine.distinct import distinct
from ekko.storage.engine.hashes import UInt32s
from ekko.storage.engine.memory import Array

_MODULUS = 1 << 64

Tally = tuple[int, int]
"""Entries, and the sum of their hashes modulo 2**64."""


class JournalTallies:
    """The tallies of one table's journals, kept incrementally."""

    def __init__(self, tallies: Mapping[int, Tally] | None = None) -> None:
        self._tallies: dict[int, Tally] = dict(tallies or {})

    def copy(self) -> "JournalTallies":
        """The tallies as they are now."""
        return JournalTallies(self._tallies)

    def of(self, label: int) -> Tally:
        """The tally of one journal; (0, 0) of one that there is not."""
        return self._tallies.get(label, (0, 0))

    def items(self) -> list[tuple[int, Tally]]:
        """Labels with entries, ascending, and their tallies."""
        return sorted(self._tallies.items())

    def replace(self, label: int, old: UInt32s, new: UInt32s) -> None:
        """Entries of a journal whose hashes were `old` have `new` ones."""
        entries, checksum = self.of(label)
        entries += int(np.count_nonzero(new)) - int(np.count_nonzero(old))
        checksum += int(new.sum(dtype=np.uint64)) - int(old.sum(dtype=np.uint64))
        if entries:
            self._tallies[label] = (entries, checksum % _MODULUS)
        else:
            self._tallies.pop(label, None)

    def remove(self, labels: Array, hashes: UInt32s) -> None:
        """Entries with these labels and hashes are no more."""
        for label in distinct(labels).tolist():
            self.replace(label, hashes[labels == label], np.empty(0, dtype=np.uint32))

    def move(self, source: int, target: int, hashes: UInt32s) -> None:
        """Entries with these hashes belong to the journal `target` from now on."""
        none = np.empty(0, dtype=np.uint32)
        self.replace(source, hashes, none)
        self.replace(target, none, hashes)
