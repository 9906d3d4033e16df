"""Arrays in shared memory: one sparse anonymous file a table, to be mapped by readers, and gone with its process.

A segment reserves address space for the largest table that the memory bound allows; the kernel commits pages on first
touch. Nothing ever moves, so growing copies nothing and a reader maps once. See docs/decisions for why not /dev/shm.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import ConfigurationError

Array = npt.NDArray[Any]

_ALIGNMENT = 1 << 21
"""Columns start on a huge-page boundary, so that the kernel may back them with huge pages where it is allowed to."""


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a segment: its name, numpy dtype string and greatest shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of address space it reserves."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


class Segment:
    """Named arrays over one shared file.

    Attributes:
        descriptor: the open file, to be mapped by other processes as `/proc/<pid>/fd/<descriptor>`.
        arrays: name -> array of the column's full shape; read-only in a process that attached.
    """

    def __init__(self, columns: Sequence[Column], descriptor: int, *, writable: bool) -> None:
        self.columns = tuple(columns)
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        size = sum(_aligned(column.nbytes) for column in columns)
        if writable:
            os.ftruncate(descriptor, size)
        mapping = mmap.mmap(descriptor, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            mapping.madvise(mmap.MADV_HUGEPAGE)
        self._mapping = mapping
        self.arrays: Mapping[str, Array] = _views(mapping, columns)

    def discard(self, start: int, stop: int) -> None:
        """Give the memory of bytes start..stop (multiples of a page) back to the system; they read as zero again."""
        if stop > start and hasattr(mmap, "MADV_REMOVE"):
            self._mapping.madvise(mmap.MADV_REMOVE, start, stop - start)

    @classmethod
    def create(cls, columns: Sequence[Column]) -> "Segment":
        """Reserve a new segment, all zeros."""
        return cls(columns, _anonymous_file(), writable=True)

    @classmethod
    def attach(cls, process: int, descriptor: int, columns: Sequence[Column]) -> "Segment":
        """Map another process's segment, read-only.

        Raises:
            ConfigurationError: that process is gone, is another user's, or this is not Linux.
        """
        path = Path(f"/proc/{process}/fd/{descriptor}")
        try:
            opened = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ConfigurationError(
                f"cannot attach to the memory of store process {process}: {error.strerror}",
                hint="read over HTTP, or run on the same Linux machine, as the same user, while the store is up",
            ) from error
        return cls(columns, opened, writable=False)

    @classmethod
    def share(cls, descriptor: int, columns: Sequence[Column]) -> "Segment":
        """Map an inherited descriptor, read-only; it is the segment's from here on."""
        return cls(columns, descriptor, writable=False)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ekko-store", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _views(mapping: mmap.mmap, columns: Sequence[Column]) -> dict[str, Array]:
    views: dict[str, Array] = {}
    offset = 0
    for column in columns:
        count = int(np.prod(column.shape, dtype=np.int64))
        flat = np.frombuffer(mapping, dtype=column.dtype, count=count, offset=offset)
        views[column.name] = flat.reshape(column.shape)
        offset += _aligned(column.nbytes)
    return views
