"""The manifest: what a store's cells mean, committed with them. JSON, so that a person can read it in an emergency.

`FORMAT_VERSION` rises with every change that an older reader would misread.
"""

import json
from dataclasses import dataclass
from typing import Any

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import FormatTooNew, StoreCorrupt
from ekko.schemas.replicas import LanePosition, ReplicaState, SeqRun, ShardPosition

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A table on disk: its number in cell prefixes, and what its rows must add up to.

    Attributes:
        rows: number of row cells. checksum: `schemas.hashing.checksum` over them.
    """

    name: str
    number: int
    dim: int
    rows: int = 0
    checksum: int = 0


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A journal on disk: its label (the first epoch it holds) and the numbers its cells stand under, oldest first.

    Where several numbers hold a key, the first one counts.
    """

    label: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JournalTally:
    """What one table's entries of one journal must add up to.

    Attributes:
        label: the journal's. table: the table's number. entries: distinct keys.
        checksum: sum of `storage.engine.hashes.entry_hashes_of` over them, modulo 2**64.
    """

    label: int
    table: int
    entries: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything of a flush that is not a row or a journal entry.

    Attributes:
        state: the replica's version vector as of the flush.
        withdrawn: model states whose journals were united with the one before.
        next_journal: the next number for a journal. garbage: numbers whose cells are to be erased.
        pinned: the model state whose overlay stays in memory.
        tallies: of all journals with entries; None in folders of earlier software, whose journals are not checked.
    """

    state: ReplicaState
    tables: tuple[TableEntry, ...]
    withdrawn: tuple[EpochRange, ...]
    journals: tuple[JournalEntry, ...]
    next_journal: int
    garbage: tuple[int, ...]
    pinned: int | None = None
    tallies: tuple[JournalTally, ...] | None = None


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as UTF-8 JSON."""
    state = manifest.state
    body = {
        "format": FORMAT_VERSION,
        "model": state.model,
        "incarnation": state.incarnation,
        "region_incarnation": state.region_incarnation,
        "catalogue": state.catalogue,
        "bound": state.bound,
        "voids": state.voids,
        "shards": {str(shard): _shard_body(position) for shard, position in state.shards.items()},
        "tables": [[table.name, table.number, table.dim, table.rows, table.checksum] for table in manifest.tables],
        "withdrawn": manifest.withdrawn,
        "journals": [[journal.label, journal.numbers] for journal in manifest.journals],
        "next_journal": manifest.next_journal,
        "garbage": manifest.garbage,
        "pinned": manifest.pinned,
        "journal_tallies": None if manifest.tallies is None else [_tally_body(tally) for tally in manifest.tallies],
    }
    return json.dumps(body, separators=(",", ":")).encode()


def encode_voids(voids: tuple[EpochRange, ...]) -> bytes:
    """Voids that are kept beside the manifest, as UTF-8 JSON."""
    return json.dumps(voids, separators=(",", ":")).encode()


def decode_voids(data: bytes) -> tuple[EpochRange, ...]:
    """Read what `encode_voids` wrote.

    Raises:
        StoreCorrupt: it is something else.
    """
    try:
        return _ranges(json.loads(data))
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(f"the store's voids cannot be read: {error}") from error


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        FormatTooNew: a later version of the software wrote it.
        StoreCorrupt: it is no manifest.
    """
    try:
        body = json.loads(data)
        version = body["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"the store's manifest cannot be read: {error}") from error
    if version != FORMAT_VERSION:
        raise FormatTooNew(
            f"the store's folder has format {version}, this software reads {FORMAT_VERSION}",
            hint="upgrade this replica's software, or give it an empty folder",
        )
    try:
        return _manifest(body)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"the store's manifest lacks or garbles a field: {error}") from error


def _manifest(body: dict[str, Any]) -> Manifest:
    state = ReplicaState(
        model=body["model"],
        incarnation=body["incarnation"],
        region_incarnation=body["region_incarnation"],
        shards={int(shard): _shard_position(position) for shard, position in body["shards"].items()},
        voids=_ranges(body["voids"]),
        catalogue=body["catalogue"],
        bound=body["bound"],
    )
    return Manifest(
        state=state,
        tables=tuple(TableEntry(*table) for table in body["tables"]),
        withdrawn=_ranges(body["withdrawn"]),
        journals=tuple(JournalEntry(label, tuple(numbers)) for label, numbers in body["journals"]),
        next_journal=body["next_journal"],
        garbage=tuple(body["garbage"]),
        pinned=body.get("pinned"),  # absent in folders of the first version, as is the next
        tallies=_tallies(body.get("journal_tallies")),
    )


def _tally_body(tally: JournalTally) -> list[int]:
    return [tally.label, tally.table, tally.entries, tally.checksum]


def _tallies(body: list[list[int]] | None) -> tuple[JournalTally, ...] | None:
    return None if body is None else tuple(JournalTally(*tally) for tally in body)


def _shard_body(position: ShardPosition) -> list[Any]:
    return [
        position.express,
        position.bulk,
        position.contiguous,
        position.ahead,
        position.complete,
        position.generation,
    ]


def _shard_position(body: list[Any]) -> ShardPosition:
    express, bulk, contiguous, ahead, complete, generation = body
    runs = tuple(SeqRun(*run) for run in ahead)
    return ShardPosition(LanePosition(*express), LanePosition(*bulk), contiguous, runs, complete, generation)


def _ranges(body: list[list[int]]) -> tuple[EpochRange, ...]:
    return tuple(EpochRange(first, last) for first, last in body)
