"""Hashes that are part of the format: key -> shard, and the order-independent checksum of rows.

Both are documented in FORMAT.md and may never change. splitmix64 is the finaliser of Steele, Lea and Flood,
"Fast splittable pseudorandom number generators" (OOPSLA 2014), with Stafford's variant 13 constants.
"""

import numpy as np
import numpy.typing as npt

UInt64s = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31 = np.uint64(30), np.uint64(27), np.uint64(31)


def splitmix64(values: UInt64s) -> UInt64s:
    """Mix every value of `values` (uint64[...]) to a uniformly distributed uint64 of the same shape."""
    mixed = values + _GOLDEN
    mixed ^= mixed >> _SHIFT_30
    mixed *= _MIX_1
    mixed ^= mixed >> _SHIFT_27
    mixed *= _MIX_2
    mixed ^= mixed >> _SHIFT_31
    return mixed


def shard_of(keys: UInt64s, shards: int) -> npt.NDArray[np.int32]:
    """Shard (partition number) of every key: `splitmix64(key) mod shards`, int32[N]."""
    return (splitmix64(np.asarray(keys, dtype=np.uint64)) % np.uint64(shards)).astype(np.int32)


def table_seed(table: str) -> int:
    """64-bit FNV-1a of a table's UTF-8 name: keeps equal rows of two tables from cancelling in a checksum."""
    digest = 0xCBF29CE484222325
    for byte in table.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return digest


def row_hashes(table: str, keys: UInt64s, rows: npt.NDArray[np.int32]) -> UInt64s:
    """hash64(table, key, row) of every row, uint64[N]; an all-zero row hashes to 0, for it means "absent".

    hash = splitmix64(splitmix64(key ^ table_seed) + sum over columns c of row[c] * odd(c)) with
    odd(c) = splitmix64(c) | 1, all modulo 2**64 and row[c] read as an unsigned 32-bit number.

    Args:
        table: the table's name.
        keys: uint64[N].
        rows: int32[N, dim].
    """
    hashes = value_hashes(table, keys, rows)
    doubtful = np.flatnonzero(rows[:, 0] == 0)
    hashes[doubtful[~rows.take(doubtful, axis=0).any(axis=1)]] = 0
    return hashes


def value_hashes(table: str, keys: UInt64s, rows: npt.NDArray[np.int32]) -> UInt64s:
    """Like `row_hashes`, but an all-zero row is a value like any other, as in journals."""
    multipliers = splitmix64(np.arange(rows.shape[1], dtype=np.uint64)) | np.uint64(1)
    unsigned = np.ascontiguousarray(rows).view(np.uint32)
    sums: UInt64s = np.einsum("rc,c->r", unsigned, multipliers, dtype=np.uint64)
    return splitmix64(splitmix64(keys ^ np.uint64(table_seed(table))) + sums)


def checksum(table: str, keys: UInt64s, rows: npt.NDArray[np.int32]) -> int:
    """Checksum of a set of rows: the sum of `row_hashes` modulo 2**64, the same in any order."""
    return int(row_hashes(table, keys, rows).sum(dtype=np.uint64))
