"""safetensors: a JSON header, then the tensors' bytes.

The library saves only what is in memory as a whole; the format is small enough to be streamed by hand.
"""

import json
import struct
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeGuard

import numpy as np

from ekko.ops.exchange.columns import BFLOAT16, Column, ColumnsFile
from ekko.ops.exchange.spool import Spool
from ekko.ops.exchange.tables import ORIGIN_KEY, Names, Origin, origin_from_text, origin_to_text
from ekko.schemas.errors import BadInput

_TYPES: dict[str, "np.dtype[np.generic]"] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_LENGTH = struct.Struct("<Q")
_HEADER_MAX = 100_000_000
"""The library's own limit."""


def read(path: Path, names: Names) -> ColumnsFile:
    """Open a safetensors file; raises BadInput."""
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else _HEADER_MAX + 1
        try:
            header = json.loads(file.read(length) if length <= _HEADER_MAX else b"")
            metadata = header.pop("__metadata__", {})
            base = _LENGTH.size + length
            columns = {
                name: _column(path, base, tensor) for name, tensor in header.items() if tensor["dtype"] in _TYPES
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{path} is no safetensors file: {error}") from error
    origin = origin_from_text(metadata[ORIGIN_KEY], path) if ORIGIN_KEY in metadata else None
    return ColumnsFile(path, columns, origin, names)


def _column(path: Path, base: int, tensor: dict[str, object]) -> Column:
    """A tensor of the header; raises TypeError or ValueError if that is none."""
    shape, offsets = tensor["shape"], tensor["data_offsets"]
    if not _are_sizes(shape) or not _are_sizes(offsets) or not offsets:
        raise ValueError(f"shape {shape}, data_offsets {offsets}")
    return Column(tuple(shape), _TYPES[str(tensor["dtype"])], partial(_open, path, base + offsets[0]))


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(each, int) and each >= 0 for each in value)


def _open(path: Path, offset: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(offset)
    return file


def write(path: Path, spool: Spool, origin: Origin) -> None:
    """Write what was spooled, and its origin."""
    names = {dtype: name for name, dtype in _TYPES.items()}
    header: dict[str, object] = {"__metadata__": {ORIGIN_KEY: origin_to_text(origin)}}
    end = 0
    for name, shape, dtype, _ in spool.columns():
        start, end = end, end + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    with path.open("wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for *_, copy in spool.columns():
            copy(file)
