"""Proof, from the disk alone, that a store's folder holds what its last flush left: what `ekko store check` runs."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ekko.schemas.errors import ConfigurationError, StoreCorrupt
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.disk_trouble import START_ANEW
from ekko.storage.disk.durable import Durable
from ekko.storage.disk.journal_proof import JournalProof
from ekko.storage.disk.manifest import JournalEntry, Manifest, TableEntry, decode_manifest
from ekko.storage.disk.rocks import DATABASE, RocksDurable
from ekko.storage.engine.admission import locating
from ekko.storage.engine.cells import entry_width, journal_prefix, row_width, rows_prefix
from ekko.storage.engine.hashes import entry_hashes_of, hashes_of
from ekko.storage.engine.journal_tallies import Tally


@dataclass(frozen=True, slots=True)
class TableReport:
    """A table on disk: rows, their checksum, and journal entries by label."""

    name: str
    dim: int
    rows: int
    checksum: int
    journals: dict[int, int]


@dataclass(frozen=True, slots=True)
class StoreReport:
    """A store that passed."""

    folder: Path
    state: ReplicaState
    tables: tuple[TableReport, ...]


def find_stores(data: Path) -> list[Path]:
    """Folders of stores under a data folder, itself included.

    Raises:
        ConfigurationError: there are none.
    """
    folders = sorted(path.parent for path in data.glob(f"**/{DATABASE}") if path.is_dir())
    if not folders:
        raise ConfigurationError(f"there is no store under {data}", hint="give the --data folder of an `ekko store`")
    return folders


def check_folder(folder: Path) -> StoreReport:
    """Read every cell that the manifest names and compare.

    Raises:
        StoreCorrupt: a checksum, count, order or owner is wrong; the message says which.
        StoreLocked: the store runs; stop it first.
    """
    with closing(RocksDurable(folder)) as durable, locating(folder):
        stored = durable.manifest()
        if stored is None:
            raise StoreCorrupt("there is no manifest", hint="it was never flushed: delete the folder")
        manifest = decode_manifest(stored)
        _check_journals(manifest)
        tables = tuple(_check_table(durable, manifest, entry) for entry in manifest.tables)
        return StoreReport(folder, manifest.state, tables)


def _check_journals(manifest: Manifest) -> None:
    """Labels are ascending, not below the bound, not withdrawn; a number belongs to one label only."""
    labels = [journal.label for journal in manifest.journals]
    numbers = [number for journal in manifest.journals for number in journal.numbers]
    withdrawn = [label for label in labels if any(label in states for states in manifest.withdrawn)]
    for wrong, what in (
        (labels != sorted(set(labels)), f"journal labels {labels} are not ascending"),
        (len(set(numbers)) != len(numbers), f"journal numbers {numbers} repeat"),
        (bool(labels) and labels[0] < manifest.state.bound, f"a journal lies below the bound {manifest.state.bound}"),
        (bool(withdrawn), f"journals {withdrawn} belong to withdrawn states"),
        (bool(set(numbers) & set(manifest.garbage)), "a journal's number is garbage"),
    ):
        if wrong:
            raise StoreCorrupt(f"manifest: {what}", hint=START_ANEW)


def _check_table(durable: Durable, manifest: Manifest, entry: TableEntry) -> TableReport:
    rows = checksum = 0
    for keys, values in durable.scan(rows_prefix(entry.number), row_width(entry.dim)):
        hashes = hashes_of(entry.name, keys, np.ascontiguousarray(values[:, 4:]).view("<i4"))
        rows += int(np.count_nonzero(hashes))
        checksum = (checksum + int(hashes.sum(dtype=np.uint64))) % (1 << 64)
    if (rows, checksum) != (entry.rows, entry.checksum):
        raise StoreCorrupt(
            f"table {entry.name}: {rows} rows with checksum {checksum:016x}, not {entry.rows} with "
            f"{entry.checksum:016x}",
            hint=START_ANEW,
        )
    proof, journals = JournalProof(manifest), {}
    for journal in manifest.journals:
        found = _tally_journal(durable, journal, entry)
        proof.check(journal.label, entry, found)
        journals[journal.label] = found[0]
    return TableReport(entry.name, entry.dim, rows, checksum, journals)


def _tally_journal(durable: Durable, journal: JournalEntry, entry: TableEntry) -> Tally:
    """Distinct keys under a journal's numbers, the first that holds a key counts, and the sum of their hashes."""
    seen, checksum = np.empty(0, dtype=np.uint64), 0
    for number in journal.numbers:
        found = [seen]
        for keys, values in durable.scan(journal_prefix(number, entry.number), entry_width(entry.dim)):
            new = ~np.isin(keys, seen)
            rows = np.ascontiguousarray(values[new]).view("<i4")
            checksum += int(entry_hashes_of(entry.name, keys[new], rows).sum(dtype=np.uint64))
            found.append(keys[new])
        seen = np.concatenate(found)
    return len(seen), checksum % (1 << 64)
