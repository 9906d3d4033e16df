"""Where things stand in a store's key space. Part of the disk format.

`J` journal u32 table u16 key u64 -> row: one cell an entry (zero values are kept).
`M` -> manifest.
`N` -> commits so far, u64.
`V` -> voids undone in memory, perhaps not in the rows yet: a start undoes those that the manifest lacks.
`R` table u16 key u64 -> arrival epoch u32, row: one cell a row that is not zero.
Numbers in prefixes and keys are big-endian, so that cells sort by number; arrival and row values are little-endian.
"""

MANIFEST = b"M"
COMMITS = b"N"
VOIDS = b"V"


def rows_prefix(table: int) -> bytes:
    """Prefix of a table's rows."""
    return b"R" + table.to_bytes(2, "big")


def row_width(dim: int) -> int:
    """Bytes of a row's value."""
    return 4 + 4 * dim


def journal_prefix(journal: int, table: int | None = None) -> bytes:
    """Prefix of a journal's entries, of one table or of all."""
    prefix = b"J" + journal.to_bytes(4, "big")
    return prefix if table is None else prefix + table.to_bytes(2, "big")


def entry_width(dim: int) -> int:
    """Bytes of a journal entry's value."""
    return 4 * dim


def end_of(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix`."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")
