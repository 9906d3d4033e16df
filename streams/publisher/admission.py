"""Admission of keys, as Monolith filters features: a key is published only from its n-th touch on.

A touch is a call of `publish` that changes the key's row; n is the table's `admission`. Most keys of a stream come once
or twice and never again: they would cost every store a row each, and teach nobody anything.

Touches are counted in a count-min sketch with conservative update (Estan and Varghese, SIGCOMM '02) of four hashes, one
byte a cell. It never counts too few, so what is admitted stays so. It may count too many: of a key never seen before
with probability f^4, where f is the part of a row's cells in use. When the keys in use reach half the cells of a row
(f = 39 %, so at most 2.4 % of new keys come a touch or more too early), the touches of keys not yet admitted are
forgotten. Admitted keys are kept for ever, so a sketch is good for one admitted key in eight bytes.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import ConfigurationError
from ekko.schemas.hashing import UInt64s, splitmix64
from ekko.streams.publisher.batches import Flags, ShardedRows

DEFAULT_BYTES = 64 * 1024 * 1024
_HASHES = 4
_ADMITTED = 255
_MIN_BYTES = 4_096


class TouchCounts:
    """The sketch of one table.

    Args:
        cells: uint8[4, W], W a power of two; see `empty`.
    """

    def __init__(self, cells: npt.NDArray[np.uint8]) -> None:
        self.cells = cells
        self._count_used()

    @classmethod
    def empty(cls, size_bytes: int) -> Self:
        """One of at most `size_bytes`."""
        width = 1 << ((size_bytes // _HASHES).bit_length() - 1)
        return cls(np.zeros((_HASHES, width), np.uint8))

    def touch(self, keys: UInt64s, needed: int) -> tuple[Flags, Flags]:
        """Count a touch of each key (distinct); which have had `needed` touches now, and which of them just now."""
        places = self._places(keys)
        counts = np.minimum.reduce([row.take(at) for row, at in zip(self.cells, places, strict=True)])
        admitted = counts == _ADMITTED
        waiting = np.flatnonzero(~admitted)
        just_now = np.zeros(len(keys), np.bool_)
        if waiting.size:
            after = counts[waiting].astype(np.int64) + 1
            just_now[waiting] = after >= needed
            after[after >= needed] = _ADMITTED
            for row, at in zip(self.cells, places, strict=True):
                np.maximum.at(row, at[waiting], after.astype(np.uint8))
            self._used += int(np.count_nonzero(counts == 0))
            if self._used > self._limit:
                self._forget()
        return admitted | just_now, just_now

    def _places(self, keys: UInt64s) -> list[UInt64s]:
        """Cells of the keys in each row: double hashing (Kirsch and Mitzenmacher, ESA '06)."""
        first = splitmix64(keys)
        step = splitmix64(first) | np.uint64(1)
        mask = np.uint64(self.cells.shape[1] - 1)
        return [(first + np.uint64(number) * step) & mask for number in range(_HASHES)]

    def _forget(self) -> None:
        """Drop the touches of keys that are not admitted."""
        self.cells[self.cells != _ADMITTED] = 0
        self._count_used()

    def _count_used(self) -> None:
        width = self.cells.shape[1]
        self._used = int(np.count_nonzero(self.cells[0]))
        self._limit = max(width // 2, self._used + width // 8)


class Admission:
    """Counts touches for the tables of one model that declare `admission`. Threads may share it.

    Counts are in memory: save them where the trainer's parameters are saved, and hand what `load` returns to the next
    publisher. Without, every key, also one that has a row, needs its touches again.

    Args:
        size_bytes: memory a table, committed as it is used.
    """

    def __init__(self, size_bytes: int = DEFAULT_BYTES, tables: Mapping[str, TouchCounts] | None = None) -> None:
        if size_bytes < _MIN_BYTES:
            raise ConfigurationError(f"{size_bytes} bytes are too few to count touches in: {_MIN_BYTES} at least")
        self._size_bytes = size_bytes
        self._tables = dict(tables or {})
        self._lock = threading.Lock()

    def let_in(self, rows: ShardedRows) -> ShardedRows:
        """Those of the rows whose keys have been touched often enough; a row let in just now is flagged created."""
        needed = rows.table.admission
        if needed == 1 or not len(rows.keys):
            return rows
        with self._lock:
            counts = self._tables.get(rows.table.name)
            if counts is None:
                counts = self._tables[rows.table.name] = TouchCounts.empty(self._size_bytes)
            admitted, just_now = counts.touch(rows.keys, needed)
        created = just_now if rows.created is None else rows.created | just_now
        before = np.concatenate(([0], np.cumsum(admitted)))
        return replace(
            rows,
            keys=rows.keys[admitted],
            deltas=rows.deltas[admitted],
            created=created[admitted],
            starts=before[rows.starts],
        )

    def save(self, path: Path) -> None:
        """Write the counts to a file, which is replaced at once or not at all."""
        with self._lock:
            arrays = {name: counts.cells.copy() for name, counts in self._tables.items()}
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with draft.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        draft.replace(path)

    @classmethod
    def load(cls, path: Path, size_bytes: int = DEFAULT_BYTES) -> Self:
        """Counts as they were saved; tables that are not in the file get `size_bytes`.

        Raises:
            ConfigurationError: there is no such file, or it is none of ours.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                tables = {name: TouchCounts(_checked(arrays[name])) for name in arrays.files}
        except (OSError, ValueError, EOFError) as error:
            raise ConfigurationError(
                f"{path} holds no touches of keys: {error}", hint="give a file that `Admission.save` wrote"
            ) from error
        return cls(size_bytes, tables)


def _checked(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if cells.dtype != np.uint8 or cells.ndim != 2 or len(cells) != _HASHES or cells.shape[1].bit_count() != 1:
        raise ValueError(f"an array {cells.dtype}{cells.shape}")
    return cells
