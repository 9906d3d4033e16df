"""The reading half of a store: safe from any thread, and never waiting for the writer."""

from collections.abc import Iterator

import numpy as np

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.hashing import UInt64s, checksum
from ekko.schemas.quantize import Int32s
from ekko.storage.engine.journal_directory import JournalDirectory
from ekko.storage.engine.reading import Bools
from ekko.storage.engine.table import Table

_ITEMS_AT_ONCE = 65_536


class StoreReads:
    """Reads of one model's tables; `store.Store` adds what changes them."""

    def __init__(self, model: ModelDeclaration) -> None:
        self._model = model
        self._directory = JournalDirectory()
        self._tables: dict[str, Table] = {}

    @property
    def voids(self) -> tuple[EpochRange, ...]:
        """Voids undone here; deltas of their epochs are dropped."""
        return self._directory.voids

    @property
    def bound(self) -> int:
        """The oldest model state that can be undone or read here."""
        return self._directory.bound

    @property
    def pinned(self) -> int | None:
        """The model state whose rows stay in memory beside the current ones, see `Store.pin`."""
        return self._directory.pinned

    @property
    def overflows(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Table -> (rows whose values wrapped around since the start, the last such keys); only tables with some."""
        return {
            name: (table.overflows.count, tuple(table.overflows.last_keys))
            for name, table in list(self._tables.items())  # the writer may add one meanwhile
            if table.overflows.count
        }

    def lookup(self, table: str, keys: UInt64s, as_of: int | None = None) -> tuple[Int32s, Bools]:
        """Rows of the keys, now or at the start of epoch `as_of`: int32[N, dim] (zero if absent), bool[N] found.

        From any thread; never torn, never waits for applies.

        Raises:
            StateUnavailable: `as_of` is withdrawn or below the bound.
        """
        if as_of is None:
            return self._table(table).reader.lookup(keys)
        self._directory.check_state(as_of)
        found = self._table(table).reader.lookup(keys, as_of)
        self._directory.check_state(as_of)  # its journals may have gone while they were read
        return found

    def items(
        self, table: str, as_of: int | None = None, *, idle_since: int | None = None
    ) -> Iterator[tuple[UInt64s, Int32s]]:
        """All rows that are not zero, in runs of keys uint64[N] and rows int32[N, dim].

        Args:
            idle_since: only rows into which nothing has arrived in this epoch or later.
        """
        arena, index = self._table(table).arena, self._table(table).index
        for start in range(0, arena.top, _ITEMS_AT_ONCE):
            keys = arena.keys[start : min(start + _ITEMS_AT_ONCE, arena.top)].copy()
            chosen = index.find_shared(keys) == np.arange(start, start + len(keys))  # the others' slots are free
            if idle_since is not None:
                chosen &= arena.arrivals[start : start + len(keys)] < idle_since
            keys = keys[chosen]
            rows, found = self.lookup(table, keys, as_of)
            yield keys[found], rows[found]

    def checksum(self, table: str, as_of: int | None = None) -> int:
        """`schemas.hashing.checksum` over all rows, now or at the start of epoch `as_of`."""
        return sum(checksum(table, keys, rows) for keys, rows in self.items(table, as_of)) % (1 << 64)

    def row_count(self, table: str) -> int:
        """Rows that are not zero."""
        return sum(len(keys) for keys, _ in self.items(table))

    def _table(self, name: str) -> Table:
        try:
            return self._tables[name]
        except KeyError:
            hint = f"its tables: {', '.join(self._tables) or 'none'}"
            raise ConfigurationError(f"model {self._model.name} has no table {name!r}", hint=hint) from None
