"""Journals under a budget: the values of old ones leave memory for the disk, and the oldest leave altogether."""

from collections.abc import Mapping, Sequence

from ekko.storage.engine.journal_directory import JournalDirectory
from ekko.storage.engine.table import Table

MEMORY_SHARE = 4
"""At most a quarter of the store's memory holds journal values; a bit less once they are let go."""

_RELIEF = 0.75
_LABELS_KEPT = 2
"""The newest journals always stay: the current epoch and the one before it."""


def over_budget(tables: Mapping[str, Table], memory: int) -> bool:
    """Whether journal values take more memory than they may."""
    return _resident(tables) > memory // MEMORY_SHARE


def let_values_go(tables: Mapping[str, Table], labels: Sequence[int], memory: int) -> Sequence[int]:
    """Let values of durable entries of these journals go, one after the other, where memory asks for it; what is left.

    Once it has begun it makes some more room, so as not to begin again at once.
    """
    if over_budget(tables, memory):
        for count, label in enumerate(labels):
            if _resident(tables) <= _RELIEF * memory / MEMORY_SHARE:
                return labels[count:]
            for table in tables.values():
                table.let_go(label)
        return ()
    return labels


def relieve(tables: Mapping[str, Table], directory: JournalDirectory, memory: int) -> int:
    """Let values of durable journal entries go, oldest journals first; the bound that the disk budget asks for.

    The disk may hold as many bytes of journals as `memory`; beyond that the oldest states can be undone no more.
    """
    let_values_go(tables, directory.labels, memory)
    bound, excess = directory.bound, _all(tables) - memory
    for label, following in zip(directory.labels[:-_LABELS_KEPT], directory.labels[1:], strict=False):
        if excess <= 0:
            break
        excess -= sum(table.journal_bytes(label) for table in tables.values())
        bound = following
    return bound


def _resident(tables: Mapping[str, Table]) -> int:
    """Bytes of journal values that could leave memory."""
    return sum(table.pool.resident_bytes - table.pinned.count * table.declaration.dim * 4 for table in tables.values())


def _all(tables: Mapping[str, Table]) -> int:
    return sum(table.pool.entries.count * table.declaration.dim * 4 for table in tables.values())
