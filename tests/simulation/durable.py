"""A disk in memory: what is committed outlives the process, and nothing else does."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import StoreCorrupt
from ekko.schemas.hashing import UInt64s
from ekko.storage.disk.durable import Batch, Bytes, Cells
from tests.simulation.faults import Doom

_RUN = 64


class Disk:
    """Cells by prefix and key, and the manifest."""

    def __init__(self) -> None:
        self.cells: dict[bytes, dict[int, bytes]] = {}
        self.manifest: bytes | None = None
        self.voids: bytes | None = None


class MemoryDurable:
    """Implements `storage.durable.Durable` on a `Disk`; the process may be killed just before or after a commit."""

    background = False

    def __init__(self, disk: Disk, doom: Doom) -> None:
        self._disk, self._doom = disk, doom
        self._batch: list[npt.NDArray[Any]] = []

    def allocate(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See `Durable.allocate`."""
        self._batch.append(np.empty(shape, dtype))
        return self._batch[-1]

    def discard(self) -> None:
        """See `Durable.discard`; who still looks at the arrays finds rubbish there."""
        for array in self._batch:
            array.fill(1)
        self._batch.clear()

    def commit(self, batch: Batch) -> None:
        """See `Durable.commit`."""
        self._doom.pass_moment("before a commit")
        given = {id(array) for cells in batch.cells for array in (cells.keys, *cells.columns, cells.present)}
        assert given == {id(array) for array in self._batch}, "a batch is all of the memory that was allocated for it"
        for cells in batch.cells:
            self._write(cells)
        self._disk.manifest = batch.manifest
        self.discard()
        self._doom.pass_moment("after a commit")

    def _write(self, cells: Cells) -> None:
        under = self._disk.cells.setdefault(cells.prefix, {})
        for number, (key, present) in enumerate(zip(cells.keys.tolist(), cells.present.tolist(), strict=True)):
            if present:
                under[key] = b"".join(np.ascontiguousarray(column[number]).tobytes() for column in cells.columns)
            else:
                under.pop(key, None)

    def erase(self, prefixes: Sequence[bytes]) -> None:
        """See `Durable.erase`."""
        for known in [known for known in self._disk.cells if known.startswith(tuple(prefixes))]:
            self._doom.pass_moment("while erasing")
            del self._disk.cells[known]

    def manifest(self) -> bytes | None:
        """See `Durable.manifest`."""
        return self._disk.manifest

    def keep_voids(self, voids: bytes) -> None:
        """See `Durable.keep_voids`."""
        self._doom.pass_moment("before voids are kept")
        self._disk.voids = voids
        self._doom.pass_moment("after voids are kept")

    def kept_voids(self) -> bytes | None:
        """See `Durable.kept_voids`."""
        return self._disk.voids

    def scan(self, prefix: bytes, width: int) -> Iterator[tuple[UInt64s, Bytes]]:
        """See `Durable.scan`."""
        cells = sorted(self._disk.cells.get(prefix, {}).items())
        for start in range(0, len(cells), _RUN):
            run = cells[start : start + _RUN]
            keys = np.array([key for key, _ in run], np.uint64)
            yield keys, np.stack([_value(value, width) for _, value in run])

    def fetch(self, prefix: bytes, keys: UInt64s, width: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """See `Durable.fetch`."""
        cells = self._disk.cells.get(prefix, {})
        values = np.zeros((len(keys), width), np.uint8)
        present = np.zeros(len(keys), np.bool_)
        for number, key in enumerate(keys.tolist()):
            if key in cells:
                values[number], present[number] = _value(cells[key], width), True
        return values, present

    def memory_bytes(self) -> int:
        """See `Durable.memory_bytes`."""
        return 0

    def close(self) -> None:
        """See `Durable.close`."""


def _value(data: bytes, width: int) -> Bytes:
    if len(data) != width:
        raise StoreCorrupt(f"a value of {len(data)} bytes stands where {width} are expected")
    return np.frombuffer(data, np.uint8)
