"""Reading a store back: rows into the arena, journals into chains, and proof that nothing is missing."""

from collections.abc import Mapping, Sequence

import numpy as np

from ekko.schemas.errors import StoreCorrupt
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.disk.disk_trouble import START_ANEW
from ekko.storage.disk.durable import Bytes, Durable
from ekko.storage.disk.journal_proof import JournalProof
from ekko.storage.disk.manifest import JournalEntry, Manifest, TableEntry
from ekko.storage.engine.cells import entry_width, journal_prefix, row_width, rows_prefix
from ekko.storage.engine.hashes import entry_hashes_of, hashes_of
from ekko.storage.engine.journal_budget import let_values_go
from ekko.storage.engine.table import Table


def recover(durable: Durable, manifest: Manifest, tables: Mapping[str, Table], memory: int) -> None:
    """Fill empty tables with what the last commit holds; of journals only as many values as the budget of `memory` has.

    Raises:
        StoreCorrupt: a row or entry is missing, changed or belongs nowhere.
    """
    entries = {entry.name: entry for entry in manifest.tables if entry.name in tables}
    for name, entry in entries.items():
        _recover_rows(durable, entry, tables[name])
    proof = JournalProof(manifest)
    resident: Sequence[int] = ()
    for journal in manifest.journals:
        for name, entry in entries.items():
            _recover_journal(durable, journal, entry, tables[name])
            proof.check(journal.label, entry, tables[name].pool.tallies.of(journal.label))
        resident = let_values_go(tables, (*resident, journal.label), memory)


def _recover_rows(durable: Durable, entry: TableEntry, table: Table) -> None:
    arena, width = table.arena, row_width(entry.dim)
    rows, checksum = 0, 0
    table.index.reserve(entry.rows)
    for keys, values in durable.scan(rows_prefix(entry.number), width):
        held = arena.count
        slots = arena.add(keys)
        table.index.insert(keys, slots, held)
        place = slice(held, held + len(keys))
        arena.arrivals[place] = _int32s(values[:, :4])[:, 0]
        arena.rows[place] = _int32s(values[:, 4:])
        table.overflows.notice(arena.rows[place])
        hashes = hashes_of(entry.name, keys, arena.rows[place])
        arena.hashes[place] = hashes
        rows += int(np.count_nonzero(hashes))
        checksum = (checksum + int(hashes.sum(dtype=np.uint64))) % (1 << 64)
    if (rows, checksum) != (entry.rows, entry.checksum):
        raise StoreCorrupt(
            f"table {entry.name}: {rows} rows with checksum {checksum:016x} are on disk, "
            f"the last flush left {entry.rows} with {entry.checksum:016x}",
            hint=START_ANEW,
        )


def _recover_journal(durable: Durable, journal: JournalEntry, entry: TableEntry, table: Table) -> None:
    """Put a journal in front of the chains: journals come in ascending order of labels."""
    for number in journal.numbers:
        for keys, values in durable.scan(journal_prefix(number, entry.number), entry_width(entry.dim)):
            _add_entries(table, journal.label, keys, values)


def _add_entries(table: Table, label: int, keys: UInt64s, values: Bytes) -> None:
    arena, pool = table.arena, table.pool
    slots = table.slots_of(keys)
    new = np.flatnonzero(arena.newest.take(slots) != label + 1)  # else an older number holds the key already
    owners = slots[new]
    rows = _int32s(values)
    entries = pool.add(owners, label, arena.heads.take(owners), rows, new)
    pool.settle(entries, label, entry_hashes_of(table.declaration.name, keys[new], rows[new]))
    pool.dirty[entries] = 0
    arena.heads[owners] = entries + 1
    arena.newest[owners] = label + 1


def _int32s(values: Bytes) -> Int32s:
    return np.ascontiguousarray(values).view("<i4")
