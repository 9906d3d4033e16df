"""Rows on their way to a file: array formats say first how many there are, and that is known last."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s

_COPY_BYTES = 1024 * 1024


class Spool:
    """Two temporary files beside the target, keys and values; gone when it is closed.

    Args:
        folder: where; it needs as much room again as the export itself.
        dim: values a row. exact: int32 `rows`; else float32 `values`.
    """

    def __init__(self, folder: Path, dim: int, *, exact: bool) -> None:
        self.dim, self.count = dim, 0
        self.name = "rows" if exact else "values"
        self.dtype = np.dtype("<i4") if exact else np.dtype("<f4")
        self._keys = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._values = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, keys: UInt64s, values: npt.NDArray[np.generic]) -> None:
        """Append rows."""
        self._keys.write(keys.astype("<u8", copy=False).tobytes())
        self._values.write(values.astype(self.dtype, copy=False).tobytes())
        self.count += len(keys)

    def columns(
        self,
    ) -> Iterator[tuple[str, tuple[int, ...], "np.dtype[np.generic]", Callable[[BinaryIO], None]]]:
        """Name, shape, type, and a function that copies the bytes to where they go."""
        yield "keys", (self.count,), np.dtype("<u8"), partial(_copy, self._keys)
        yield self.name, (self.count, self.dim), self.dtype, partial(_copy, self._values)

    def runs(self, rows: int) -> Iterator[tuple[UInt64s, npt.NDArray[np.generic]]]:
        """The rows again, as keys and values [N, dim], some at a time."""
        self._keys.seek(0)
        self._values.seek(0)
        for start in range(0, self.count, rows):
            count = min(rows, self.count - start)
            keys = np.frombuffer(self._keys.read(8 * count), "<u8")
            values = np.frombuffer(self._values.read(4 * count * self.dim), self.dtype)
            yield keys, values.reshape(count, self.dim)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._keys.close()
        self._values.close()


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target, _COPY_BYTES)
