"""Columns into the keys and values of cells and back, without a loop over rows of Python's own."""

import struct
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s
from ekko.storage.disk.durable import Bytes, Cells

_CELLS_AT_ONCE = 8192
_OTHER_WIDTH = "a cell is not {} bytes long"


class CellWriter(Protocol):
    """Takes cells in ascending order of their keys."""

    def __setitem__(self, key: bytes, value: bytes) -> None: ...
    def __delitem__(self, key: bytes) -> None: ...


def write_cells(writer: CellWriter, cells: Cells) -> None:
    """Write or delete every cell, sorted."""
    order = np.argsort(cells.keys)
    for start in range(0, len(order), _CELLS_AT_ONCE):
        part = order[start : start + _CELLS_AT_ONCE]
        keys = joined_keys(cells.prefix, cells.keys[part])
        values = joined_values(cells, part)
        present = cells.present[part]
        edges = [0, *(np.flatnonzero(np.diff(present)) + 1).tolist(), len(part)]
        for first, last in pairwise(edges):
            run = slice(first, last)
            if present[first]:
                deque(map(writer.__setitem__, keys[run], values[run]), maxlen=0)
            else:
                deque(map(writer.__delitem__, keys[run]), maxlen=0)


def split_cells(prefix: bytes, cells: bytes, width: int) -> tuple[UInt64s, Bytes]:
    """Keys uint64[N] and values uint8[N, width] of cells under `prefix`, keys and values one after the other.

    Raises:
        ValueError: a value is not `width` bytes long: it shifts what follows it, or the end.
    """
    before = len(prefix)
    stride = before + 8 + width
    if len(cells) % stride:
        raise ValueError(_OTHER_WIDTH.format(width))
    whole = np.frombuffer(cells, dtype=np.uint8).reshape(-1, stride)
    if (whole[:, :before] != np.frombuffer(prefix, dtype=np.uint8)).any():
        raise ValueError(_OTHER_WIDTH.format(width))
    keys = np.ascontiguousarray(whole[:, before : before + 8]).view(">u8").ravel()
    return keys.astype(np.uint64), whole[:, before + 8 :]


def found_values(found: Sequence[bytes | None], width: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """uint8[N, width], zero where a value is None, and bool[N] which are not.

    Raises:
        ValueError: a value is not `width` bytes long.
    """
    present = np.fromiter((value is not None for value in found), np.bool_, len(found))
    values = np.zeros((len(found), width), dtype=np.uint8)
    stored = [value for value in found if value is not None]
    if any(len(value) != width for value in stored):
        raise ValueError(_OTHER_WIDTH.format(width))
    values[present] = np.frombuffer(b"".join(stored), dtype=np.uint8).reshape(-1, width)
    return values, present


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
