"""Parquet by pyarrow, an extra: columns `keys` uint64, and `rows` (int32) or `values` (floating), lists of dim."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ekko.ops.exchange.spool import Spool
from ekko.ops.exchange.tables import (
    ORIGIN_KEY,
    Chunk,
    Names,
    Origin,
    checked_keys,
    chunk_rows,
    origin_from_text,
    origin_to_text,
)
from ekko.schemas.errors import BadInput, ConfigurationError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    if not TYPE_CHECKING:
        pa = pq = None

_BUFFER_BYTES = 1024 * 1024


class ParquetFile:
    """A `TableFile`.

    Raises:
        ConfigurationError: pyarrow is not installed.
        BadInput: no Parquet file, or none that holds a table.
    """

    def __init__(self, path: Path, names: Names) -> None:
        _require(path)
        self.path = path
        try:
            with _open(path) as file:
                schema, self.rows = file.schema_arrow, file.metadata.num_rows
                first = next(file.iter_batches(batch_size=1), None)
        except pa.ArrowInvalid as error:
            raise BadInput(f"{path} is no Parquet file: {error}") from error
        note = (schema.metadata or {}).get(ORIGIN_KEY.encode())
        origin = None if note is None else origin_from_text(note, path)
        self.origin = origin if "rows" in schema.names else None
        self._values = "rows" if self.origin else names.values
        self._keys = names.keys if names.keys in schema.names else None
        if self._values not in schema.names:
            raise BadInput(
                f"{path} holds no column {self._values!r}", hint=f"name one with --values: {', '.join(schema.names)}"
            )
        if origin is not None:
            self.dim = origin.table.dim
        elif first is None or not pa.types.is_nested(first.column(self._values).type):
            raise BadInput(
                f"{path}: column {self._values} holds no lists of numbers", hint="a row is a list of dim values"
            )
        else:
            self.dim = len(first.column(self._values)[0])

    def chunks(self) -> Iterator[Chunk]:
        """See `TableFile.chunks`."""
        wanted = [name for name in (self._keys, self._values) if name is not None]
        start = 0
        with _open(self.path) as file:
            for batch in file.iter_batches(batch_size=chunk_rows(self.dim), columns=wanted):
                values = self._matrix(batch.column(self._values))
                keys = np.arange(start, start + len(values), dtype=np.uint64)
                if self._keys is not None:
                    keys = checked_keys(batch.column(self._keys).to_numpy(zero_copy_only=False), self.path)
                start += len(values)
                yield Chunk(keys, values)

    def _matrix(self, column: "pa.Array") -> npt.NDArray[np.floating]:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if column.null_count or len(flat) != len(column) * self.dim or flat.dtype.kind not in "if":
            raise BadInput(
                f"{self.path}: a row of {self._values} is not {self.dim} numbers", hint="all rows need one dim"
            )
        matrix: npt.NDArray[np.floating] = flat.reshape(len(column), self.dim)
        if self.origin is None and matrix.dtype.kind != "f":
            raise BadInput(f"{self.path}: {self._values} are {matrix.dtype}, not floating point")
        return matrix


def write(path: Path, spool: Spool, origin: Origin) -> None:
    """Write what was spooled, and its origin."""
    _require(path)
    value = pa.int32() if spool.name == "rows" else pa.float32()
    fields = [pa.field("keys", pa.uint64(), nullable=False), pa.field(spool.name, pa.list_(value, spool.dim))]
    schema = pa.schema(fields, metadata={ORIGIN_KEY: origin_to_text(origin)})
    with pq.ParquetWriter(path, schema) as writer:
        for keys, values in spool.runs(chunk_rows(spool.dim)):
            rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), spool.dim)
            writer.write_batch(pa.record_batch([pa.array(keys), rows], schema=schema))


def _open(path: Path) -> "pq.ParquetFile":
    """By buffers of 1 MB: else the whole column of a row group is read at once, and most files have one group."""
    return pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _require(path: Path) -> None:
    if pa is None:
        raise ConfigurationError(
            f"{path} needs pyarrow, which is not installed",
            hint="pip install 'ekko-kafka[exchange]', or use npz or safetensors",
        )
