"""Rows by key in one process: what a trainer keeps (optimiser state, its own parameters, frozen copies)."""

import numpy as np
from numpy.typing import NDArray


class KeyedRows:
    """A map from uint64 keys to float32 rows, as two sorted arrays; lookups are vectorised, and so are insertions.

    Made for some thousands of keys that are nearly all known early: admitting new ones copies the arrays.
    """

    def __init__(self, dim: int) -> None:
        self.keys = np.empty(0, np.uint64)
        self.rows = np.empty((0, dim), np.float32)

    def missing(self, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Those of the distinct ``keys uint64[N]`` that have no row here."""
        return keys[~np.isin(keys, self.keys, assume_unique=True)]

    def admit(self, keys: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        """Insert rows ``float32[N, dim]`` for sorted, distinct keys that are missing."""
        places = np.searchsorted(self.keys, keys)
        self.keys = np.insert(self.keys, places, keys)
        self.rows = np.insert(self.rows, places, rows, axis=0)

    def slots(self, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Positions ``intp[N]`` in `rows` of keys that all have a row here."""
        return np.searchsorted(self.keys, keys)

    def clear(self) -> None:
        """Forget everything."""
        self.keys, self.rows = self.keys[:0], self.rows[:0]
