"""Columns into the keys and values of cells, without a loop over rows of Python's own."""

import struct

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s
from ekko.storage.disk.durable import Cells


def joined_keys(prefix: bytes, keys: UInt64s) -> list[bytes]:
    """Keys of the cells of `keys` under `prefix`."""
    joined = np.empty((len(keys), len(prefix) + 8), dtype=np.uint8)
    joined[:, : len(prefix)] = np.frombuffer(prefix, dtype=np.uint8)
    joined[:, len(prefix) :] = keys.astype(">u8").view(np.uint8).reshape(-1, 8)
    return list(struct.unpack(f"{joined.shape[1]}s" * len(keys), joined.data))


def joined_values(cells: Cells, part: npt.NDArray[np.int64]) -> list[bytes]:
    """Values of the cells at places `part`."""
    columns = [np.ascontiguousarray(column[part]).reshape(len(part), -1).view(np.uint8) for column in cells.columns]
    joined = np.concatenate(columns, axis=1)
    return list(struct.unpack(f"{joined.shape[1]}s" * len(part), joined.data))
