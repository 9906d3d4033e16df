"""Admission of keys, as Monolith filters features: a key is published only from its n-th touch on.

A touch is a call of `publish` that changes the key's row and does not fail; n is the table's `admission`. Most keys of
a stream come once or twice and never again: they would cost every store a row each, and teach nobody anything.

Touches are counted in a count-min sketch with conservative update (Estan and Varghese, SIGCOMM '02) of four hashes, one
byte a cell. It never counts too few, so what is admitted stays so. It may count too many: of a key never seen before
with probability f^4, where f is the part of a row's cells in use. When the keys in use reach half the cells of a row
(f = 39 %, so at most 2.4 % of new keys come a touch or more too early), the touches of keys not yet admitted are
forgotten. Admitted keys are kept for ever, so a sketch is good for one admitted key in eight bytes.
"""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
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

    def look(self, keys: UInt64s, needed: int) -> tuple[Flags, Flags]:
        """Which keys (distinct) have had `needed` touches with one more, and which of them just now."""
        counts = self._counts(self._places(keys))
        admitted = counts == _ADMITTED
        just_now = ~admitted & (counts.astype(np.int64) + 1 >= needed)
        return admitted | just_now, just_now

    def count(self, keys: UInt64s, let_in: Flags, needed: int) -> None:
        """Count a touch of each key (distinct); those that were `let_in` by it are admitted from now on.

        Of other threads' touches since `look` none lets a key in that was left out here: its row is not created yet.
        """
        places = self._places(keys)
        counts = self._counts(places)
        waiting = np.flatnonzero(counts != _ADMITTED)
        if not waiting.size:
            return
        after = np.where(let_in[waiting], _ADMITTED, np.minimum(counts[waiting].astype(np.int64) + 1, needed - 1))
        for row, at in zip(self.cells, places, strict=True):
            np.maximum.at(row, at[waiting], after.astype(np.uint8))
        self._used += int(np.count_nonzero(counts == 0))
        if self._used > self._limit:
            self._forget()

    def _counts(self, places: list[UInt64s]) -> npt.NDArray[np.uint8]:
        counts: npt.NDArray[np.uint8] = np.minimum.reduce(
            [row.take(at) for row, at in zip(self.cells, places, strict=True)]
        )
        return counts

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


@dataclass(frozen=True, slots=True)
class Touches:
    """Of one call of `publish`, to be counted once it has succeeded.

    Attributes:
        rows: all that are touched. let_in: those to be published; a row let in just now is flagged created.
        admitted: bool [rows], which are let in; None: the table lets every key in.
    """

    rows: ShardedRows
    let_in: ShardedRows
    admitted: Flags | None


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

    def look(self, rows: ShardedRows) -> Touches:
        """Which of the rows have been touched often enough, with this touch; nothing is counted yet."""
        needed = rows.table.admission
        if needed == 1 or not len(rows.keys):
            return Touches(rows, rows, None)
        with self._lock:
            admitted, just_now = self._of(rows).look(rows.keys, needed)
        created = just_now if rows.created is None else rows.created | just_now
        before = np.concatenate(([0], np.cumsum(admitted)))
        let_in = replace(
            rows,
            keys=rows.keys[admitted],
            deltas=rows.deltas[admitted],
            created=created[admitted],
            starts=before[rows.starts],
        )
        return Touches(rows, let_in, admitted)

    def count(self, touches: Touches) -> None:
        """The rows let in are published: count. What failed is no touch, for it will be published again."""
        if touches.admitted is not None:
            rows = touches.rows
            with self._lock:
                self._of(rows).count(rows.keys, touches.admitted, rows.table.admission)

    def _of(self, rows: ShardedRows) -> TouchCounts:
        counts = self._tables.get(rows.table.name)
        if counts is None:
            counts = self._tables[rows.table.name] = TouchCounts.empty(self._size_bytes)
        return counts

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
