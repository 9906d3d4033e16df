"""npz: a zip of npy arrays. Read and written as streams (`numpy.load` and `savez` hold whole arrays)."""

import zipfile
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Self, cast

import numpy as np

from ekko.ops.exchange.columns import Column, ColumnsFile
from ekko.ops.exchange.spool import Spool
from ekko.ops.exchange.tables import ORIGIN_KEY, Names, Origin, origin_from_text, origin_to_text
from ekko.schemas.errors import BadInput


def read(path: Path, names: Names) -> ColumnsFile:
    """Open an npz file; raises BadInput."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            columns = {name.removesuffix(".npy"): _column(path, archive, name) for name in members}
    except (zipfile.BadZipFile, ValueError) as error:
        raise BadInput(f"{path} is no npz file: {error}") from error
    note = columns.pop(ORIGIN_KEY, None)
    origin = None
    if note is not None:
        with note.open() as stream:
            origin = origin_from_text(stream.read(), path)
    return ColumnsFile(path, columns, origin, names)


def _column(path: Path, archive: zipfile.ZipFile, member: str) -> Column:
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream)
    if fortran and len(shape) > 1 and min(shape) > 1:
        raise BadInput(f"{path}: {member} is in column order", hint="save numpy.ascontiguousarray of it")
    if dtype.hasobject:
        raise BadInput(f"{path}: {member} holds Python objects", hint="save plain numbers")
    return Column(shape, dtype, partial(_open, path, member))


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    return shape, fortran, dtype


class _Member:
    """A stream of one member that closes its archive too."""

    def __init__(self, path: Path, member: str) -> None:
        self._archive = zipfile.ZipFile(path)
        self._stream = self._archive.open(member)
        _header(self._stream)
        self.read = self._stream.read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._archive.close()


def _open(path: Path, member: str) -> BinaryIO:
    return cast("BinaryIO", _Member(path, member))


def write(path: Path, spool: Spool, origin: Origin) -> None:
    """Write what was spooled, and its origin."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        note = np.frombuffer(origin_to_text(origin).encode(), np.uint8)
        with archive.open(f"{ORIGIN_KEY}.npy", "w") as member:
            np.lib.format.write_array(member, note)
        for name, shape, dtype, copy in spool.columns():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(member, header)
                copy(cast("BinaryIO", member))
