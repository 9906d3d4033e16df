"""Deltas of one key that came together are one delta: their sum."""

import numpy as np

from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s


def sum_duplicates(keys: UInt64s, deltas: Int32s) -> tuple[UInt64s, Int32s]:
    """Distinct keys with the sums (modulo 2**32) of their deltas; the input itself if the keys are distinct already.

    Args:
        keys: uint64[N].
        deltas: int32[N, dim].
    """
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return keys, deltas
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    starts = np.flatnonzero(first)
    counts = np.diff(starts, append=len(keys))
    sums = deltas.take(order[starts], axis=0)
    repeated = counts > 1
    members = order[np.repeat(repeated, counts)]
    groups = np.concatenate(([0], np.cumsum(counts[repeated])[:-1]))
    sums[repeated] = np.add.reduceat(deltas.take(members, axis=0), groups, axis=0, dtype=np.int32)
    return ordered[starts], sums
