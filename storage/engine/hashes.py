"""Hashes of many rows or journal entries, in runs that stay in the cache."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s, row_hashes, value_hashes
from ekko.schemas.quantize import Int32s

UInt32s = npt.NDArray[np.uint32]

_HALF = np.uint64(32)
_HASHED_AT_ONCE = 4096
"""Rows hashed in one go: they stay in the second-level cache while the columns are summed."""


def hashes_of(table: str, keys: UInt64s, rows: Int32s) -> UInt64s:
    """`schemas.hashing.row_hashes` of rows: 0 where there is none."""
    return _in_runs(row_hashes, table, keys, rows)


def entry_hashes_of(table: str, keys: UInt64s, values: Int32s) -> UInt32s:
    """Hashes of journal entries, uint32[N]: the upper half of `schemas.hashing.value_hashes`, made odd: never 0."""
    return (_in_runs(value_hashes, table, keys, values) >> _HALF).astype(np.uint32) | np.uint32(1)


def _in_runs(hashing: Callable[[str, UInt64s, Int32s], UInt64s], table: str, keys: UInt64s, rows: Int32s) -> UInt64s:
    hashes = np.empty(len(keys), dtype=np.uint64)
    for start in range(0, len(keys), _HASHED_AT_ONCE):
        part = slice(start, start + _HASHED_AT_ONCE)
        hashes[part] = hashing(table, keys[part], rows[part])
    return hashes
