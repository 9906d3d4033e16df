"""Table initialisers: the value of a key before its first delta, the same at every trainer and reader."""

import numpy as np

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.hashing import UInt64s, splitmix64
from ekko.schemas.quantize import Int32s


def initial_rows(table: TableDeclaration, keys: UInt64s) -> Int32s:
    """Initial rows of `keys` (uint64[N]) as int32[N, dim] steps of 2**-fraction_bits.

    zeros: 0. uniform: floor((h / 2**64 * 2 - 1) * scale * 2**fraction_bits) with
    h = splitmix64(splitmix64(key ^ seed) + column), so equal in every language with 64-bit integers and doubles.
    """
    if table.initializer == "zeros":
        return np.zeros((len(keys), table.dim), dtype=np.int32)
    mixed = splitmix64(np.asarray(keys, dtype=np.uint64) ^ np.uint64(table.seed))
    hashes = splitmix64(mixed[:, None] + np.arange(table.dim, dtype=np.uint64)[None, :])
    # The upper 53 bits, so that the conversion to double is exact on every platform.
    unit = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    return np.floor(unit * (table.scale * (1 << table.fraction_bits))).astype(np.int32)
