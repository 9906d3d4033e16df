"""What a store believes to be on disk, compared with what is there."""

import numpy as np

from ekko.storage.engine.cells import row_width, rows_prefix
from ekko.storage.engine.hashes import entry_hashes_of
from ekko.storage.engine.journal_tallies import JournalTallies
from ekko.storage.engine.table import Table
from ekko.storage.store import Store


def check_what_is_not_dirty(store: Store) -> None:
    """Rows and journal entries that no flush would write stand on disk just as they do in memory; at any moment."""
    for table in store._tables.values():
        _check_rows(store, table)
        _check_entries(table)
        assert table.pool.tallies.items() == _tallied(table)
        if not store.flushing:
            _check_marks(table)


def _check_rows(store: Store, table: Table) -> None:
    arena = table.arena
    slots = np.flatnonzero((arena.dirty[: arena.top] == 0) & (arena.arrivals[: arena.top] >= 0))
    dim = table.declaration.dim
    data, present = store._durable.fetch(rows_prefix(table.source.number), arena.keys.take(slots), row_width(dim))
    cells = np.ascontiguousarray(data).view("<i4").reshape(len(slots), 1 + dim)
    assert (cells[present, 0] == arena.arrivals.take(slots[present])).all()
    assert (cells[:, 1:] == arena.rows.take(slots, axis=0)).all(), "a row is zero, or on disk"


def _check_entries(table: Table) -> None:
    pool = table.pool
    entries = np.flatnonzero((pool.dirty[: pool.top] == 0) & (pool.slots[: pool.top] != 0))
    values, keys = table._read(entries), table.arena.keys.take(pool.slots.take(entries).astype(np.int64) - 1)
    resident = pool.places.take(entries) != 0
    assert (values[resident] == pool.read(entries[resident])).all()
    assert (pool.hashes.take(entries) == entry_hashes_of(table.declaration.name, keys, values)).all()


def _tallied(table: Table) -> list[tuple[int, tuple[int, int]]]:
    """What the tallies of the journals must be: of whatever their entries' hashes are."""
    pool, tallies = table.pool, JournalTallies()
    for entry in np.flatnonzero(pool.slots[: pool.top]):
        tallies.replace(int(pool.labels[entry]), np.zeros(1, np.uint32), pool.hashes[entry : entry + 1])
    return tallies.items()


def _check_marks(table: Table) -> None:
    """Between two flushes something is dirty or not, and what is free is not."""
    arena, pool = table.arena, table.pool
    assert set(np.concatenate((arena.dirty[: arena.top], pool.dirty[: pool.top])).tolist()) <= {0, 1}
    assert not arena.dirty[: arena.top][arena.arrivals[: arena.top] < 0].any()
    assert not pool.dirty[: pool.top][pool.slots[: pool.top] == 0].any()
