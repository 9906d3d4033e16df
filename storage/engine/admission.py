"""What a store refuses at its door, before anything changes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput, ConfigurationError, MemoryExhausted, StoreCorrupt
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.disk_trouble import START_ANEW
from ekko.storage.disk.manifest import TableEntry
from ekko.storage.engine.arena import row_bytes
from ekko.storage.engine.table import Table


@contextmanager
def locating(path: Path) -> Iterator[None]:
    """Have what is found corrupt inside, or too large, name the store's folder."""
    try:
        yield
    except (StoreCorrupt, MemoryExhausted) as error:
        if str(path) in error.message:
            raise
        hint = error.hint or START_ANEW
        raise type(error)(f"store {path}: {error.message}", hint=hint) from error


def check_shapes(table: TableDeclaration, keys: UInt64s, deltas: Int32s) -> None:
    """Refuse deltas whose shapes or types no row of the table can take (BadInput)."""
    right = (len(keys), table.dim)
    if keys.dtype != np.uint64 or deltas.dtype != np.int32 or deltas.shape != right:
        raise BadInput(
            f"table {table.name}: keys {keys.dtype}{keys.shape} with deltas {deltas.dtype}{deltas.shape}, "
            f"not uint64[N] with int32{right}",
        )


def check_identity(path: Path, stored: ReplicaState, asked: ReplicaState) -> None:
    """Refuse a folder that belongs to another model, incarnation, region or set of shards (ConfigurationError)."""
    for what, on_disk, wanted in (
        ("model", stored.model, asked.model),
        ("model incarnation", stored.incarnation, asked.incarnation),
        ("region incarnation", stored.region_incarnation, asked.region_incarnation),
        ("shards", sorted(stored.shards), sorted(asked.shards)),
    ):
        if on_disk != wanted:
            raise ConfigurationError(
                f"{path} holds {what} {on_disk}, not {wanted}",
                hint="give every model incarnation and set of shards a folder of its own",
            )


def check_dim(path: Path, stored: TableEntry, declared: TableDeclaration) -> None:
    """Refuse a table whose rows on disk have another dim than the catalogue says (ConfigurationError)."""
    if stored.dim != declared.dim:
        raise ConfigurationError(
            f"{path}: table {stored.name} has dim {stored.dim} on disk, {declared.dim} in the catalogue",
            hint="a table's dim never changes; declare a table of another name",
        )


def check_memory(path: Path, tables: Sequence[TableEntry], memory: int) -> None:
    """Refuse a folder whose rows take more than `memory` bytes (MemoryExhausted), before they are read."""
    needed = sum(table.rows * row_bytes(table.dim) for table in tables)
    if needed > memory:
        raise MemoryExhausted(
            f"the rows of store {path} take {needed} bytes of memory, it is given {memory}",
            hint="give the store more --memory, or fewer --shards in another folder",
        )


def check_room(table: Table, keys: UInt64s, memory: int, used: int) -> None:
    """Refuse deltas for which a store of `memory` bytes, `used` of them taken, has no room (MemoryExhausted)."""
    entries_left = len(table.pool.slots) - table.pool.entries.count
    fits = table.most(len(keys)) <= memory - used or table.growth(keys) <= memory - used
    if fits and len(keys) <= entries_left:
        return
    raise MemoryExhausted(
        f"{len(keys)} rows of table {table.declaration.name} do not fit: {used} of {memory} bytes are in use",
        hint="give the store more --memory, fewer --shards, or expire rows",
    )
