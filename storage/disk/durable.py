"""What a store asks of the thing that keeps it: one atomic commit of many cells, scans, and nothing else.

RocksDB is one (`rocks`); the simulation has a twin in memory. A batch is columnar, so that nobody loops over rows
before the file is written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Cells:
    """Values under one prefix; the cell of a key stands at `prefix + key` (8 bytes, big-endian).

    Attributes:
        keys: uint64[N], distinct, in any order.
        columns: arrays of N rows each; a value is the bytes of its row in each of them, one after the other.
        present: bool[N], False where the cell is to be deleted.
    """

    prefix: bytes
    keys: UInt64s
    columns: tuple[npt.NDArray[Any], ...]
    present: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """What becomes durable at once: cells (prefixes distinct, none a beginning of another) and the manifest."""

    cells: tuple[Cells, ...]
    manifest: bytes


class Durable(Protocol):
    """Keeper of one store. Commits come one at a time; scans only while none runs."""

    @property
    def background(self) -> bool:
        """Whether `commit` may run in a thread beside the applies; else it runs when the flush is polled."""
        ...

    def allocate(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Memory for an array of the next batch; it is the keeper's again once the batch is committed."""
        ...

    def discard(self) -> None:
        """The next batch will not be committed: the memory allocated for it is the keeper's again."""
        ...

    def commit(self, batch: Batch) -> None:
        """Make the batch durable, all or nothing.

        Raises:
            StoreUnwritable: the disk is full, read-only or failing; nothing changed.
        """
        ...

    def erase(self, prefixes: Sequence[bytes]) -> None:
        """Delete every cell under the prefixes; needs no atomicity, the manifest has ceased to name them."""
        ...

    def manifest(self) -> bytes | None:
        """The last manifest committed, None in a new store."""
        ...

    def keep_voids(self, voids: bytes) -> None:
        """Make voids durable at once, in place of those kept before, beside a commit that may be under way.

        Raises:
            StoreUnwritable: as `commit`.
        """
        ...

    def kept_voids(self) -> bytes | None:
        """The voids kept last, None if none ever were."""
        ...

    def scan(self, prefix: bytes, width: int) -> Iterator[tuple[UInt64s, Bytes]]:
        """Cells under `prefix` in ascending key order, in runs: keys uint64[N] and values uint8[N, width].

        Raises:
            StoreCorrupt: a checksum does not match, a file is missing or cut off, or a value has another width.
        """
        ...

    def fetch(self, prefix: bytes, keys: UInt64s, width: int) -> tuple[Bytes, npt.NDArray[np.bool_]]:
        """Values of the keys: uint8[N, width] (zero where absent), and bool[N] present; from any thread."""
        ...

    def memory_bytes(self) -> int:
        """Memory held for batches."""
        ...

    def close(self) -> None:
        """Release the folder; harmless when repeated."""
        ...
