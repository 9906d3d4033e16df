"""Stores for tests: small, on real RocksDB, with rows of which every value is the same, so that a torn one shows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.store import Store

DIM = 64
ROWS = 3_000
LARGE = 20_000
"""More cells than are written in the store's own process."""

MODEL = ModelDeclaration("ctr", 2, 1, (TableDeclaration("embedding", DIM),), incarnation=7)


def open_store(folder: Path, model: ModelDeclaration = MODEL, memory_bytes: int = 1 << 30) -> Store:
    return Store.open(folder, model, range(model.shards), region_incarnation=3, memory_bytes=memory_bytes)


@contextmanager
def opened(folder: Path, model: ModelDeclaration = MODEL, memory_bytes: int = 1 << 30) -> Iterator[Store]:
    store = open_store(folder, model, memory_bytes)
    try:
        yield store
    finally:
        store.close()


def keys_of(*keys: int) -> UInt64s:
    return np.array(keys, dtype=np.uint64)


def uniform_deltas(count: int, value: int = 1, dim: int = DIM) -> Int32s:
    return np.full((count, dim), value, dtype=np.int32)


def content(folder: Path) -> list[tuple[int, int, int]]:
    """Checksums as of every state; opening is allowed to fail."""
    with opened(folder) as store:
        return [(state, store.checksum("embedding", state), store.row_count("embedding")) for state in range(5)]
