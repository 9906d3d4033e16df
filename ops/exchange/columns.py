"""Files that hold plain arrays one after the other, npz and safetensors: read as streams, never as a whole."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ekko.ops.exchange.tables import Chunk, Names, Origin, checked_keys, chunk_rows
from ekko.schemas.errors import BadInput

BFLOAT16 = np.dtype("V2")
"""numpy has no bfloat16: two opaque bytes, the upper half of a float32."""


@dataclass(frozen=True, slots=True)
class Column:
    """An array in a file; `open` gives a stream that stands at its first byte. Row-major."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    open: Callable[[], BinaryIO]


class ColumnsFile:
    """A `TableFile` of columns: `rows` with the origin in an export of ours, else those of `names`.

    Raises:
        BadInput: the arrays are not there, or are none of a table.
    """

    def __init__(self, path: Path, columns: dict[str, Column], origin: Origin | None, names: Names) -> None:
        self.path, self.origin = path, origin
        exact = origin is not None and "rows" in columns
        self._values = _column(path, columns, "rows" if exact else names.values)
        self._keys = columns.get(names.keys)
        expected = "int32" if exact else "floating point"
        kind = "i" if exact else "fV"
        if len(self._values.shape) != 2 or self._values.dtype.kind not in kind or 0 in self._values.shape[1:]:
            given = f"{self._values.dtype}{list(self._values.shape)}"
            raise BadInput(f"{path}: values are {given}, not {expected} [rows, dim]", hint="one file holds one table")
        self.rows, self.dim = self._values.shape
        if self._keys is not None and self._keys.shape != (self.rows,):
            raise BadInput(f"{path}: keys are of shape {list(self._keys.shape)}, for {self.rows} rows")
        self.origin = origin if exact else None

    def chunks(self) -> Iterator[Chunk]:
        """See `TableFile.chunks`."""
        size = chunk_rows(self.dim)
        with ExitStack() as stack:
            values = stack.enter_context(self._values.open())
            keys = None if self._keys is None else stack.enter_context(self._keys.open())
            for start in range(0, self.rows, size):
                count = min(size, self.rows - start)
                yield Chunk(self._read_keys(keys, start, count), self._read_values(values, count))

    def _read_keys(self, stream: BinaryIO | None, start: int, count: int) -> npt.NDArray[np.uint64]:
        if stream is None or self._keys is None:
            return np.arange(start, start + count, dtype=np.uint64)
        return checked_keys(self._read(stream, self._keys.dtype, count), self.path)

    def _read_values(self, stream: BinaryIO, count: int) -> npt.NDArray[np.floating]:
        raw = self._read(stream, self._values.dtype, count * self.dim).reshape(count, self.dim)
        if raw.dtype == BFLOAT16:
            return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
        return cast("npt.NDArray[np.floating]", raw)

    def _read(self, stream: BinaryIO, dtype: np.dtype[np.generic], count: int) -> npt.NDArray[np.generic]:
        data = stream.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise BadInput(f"{self.path} is cut short", hint="copy or write it again")
        return np.frombuffer(data, dtype)


def _column(path: Path, columns: dict[str, Column], name: str) -> Column:
    if name not in columns:
        there = ", ".join(sorted(columns)) or "none"
        raise BadInput(f"{path} holds no array {name!r}", hint=f"name one with --values; there are: {there}")
    return columns[name]
