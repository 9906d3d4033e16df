"""When dense tables go: all their rows at once, once in so many seconds, whatever single rows score. Pure."""

from collections.abc import Mapping

from ekko.schemas.declarations import TableDeclaration


class Cadence:
    """The dense tables of one shard; others have no entry here and never rest.

    After a takeover every dense table is due: when it went last nobody knows any more.
    """

    def __init__(self) -> None:
        self._due_s: dict[str, float] = {}

    def resting(self, tables: Mapping[str, TableDeclaration], now_s: float) -> frozenset[str]:
        """Dense tables whose time has not come."""
        dense = [name for name, table in tables.items() if table.send_every_s]
        return frozenset(name for name in dense if now_s < self._due_s.get(name, now_s))

    def sent(self, table: TableDeclaration, now_s: float) -> None:
        """Nothing of a table that was due waits any more."""
        if table.send_every_s:
            self._due_s[table.name] = now_s + table.send_every_s
