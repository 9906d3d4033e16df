"""Bulk rows that wait for bandwidth: one exact sum a key and (arrival epoch, effective epoch), or class of epochs."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ekko.schemas.epochs import EpochRange, is_void
from ekko.schemas.errors import GapError
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.streams.fanout.pending_table import FAR_FUTURE_US, PendingTable
from ekko.streams.fanout.rows import Bools, Indices, RowUpdates

PART_BYTES = 256
"""What a lane record's head, key and framing may take."""


class Group(NamedTuple):
    """What deltas must have in common to be summed: where they arrived, and to which epoch they belong for undo.

    Epochs between which only withdrawn states stand are one, see `classes`.
    """

    arrival: int
    effective: int


class Waiting(NamedTuple):
    """How much waits: rows, and bytes of memory that they take."""

    rows: int = 0
    nbytes: int = 0

    def plus(self, other: "Waiting") -> "Waiting":
        """What waits in both places."""
        return Waiting(self.rows + other.rows, self.nbytes + other.nbytes)


class Allowance(NamedTuple):
    """Bytes of bulk that may go now, before compression; `in_turn` of them by age, the others by size of change.

    Of the others, rows whose oldest delta was published before `due_us` go first: a row that waits longer carries more.
    """

    total: float
    in_turn: float = 0.0
    due_us: int = 0

    def after(self, used: float) -> "Allowance":
        """What is left after so many bytes, those in turn first."""
        return Allowance(max(0.0, self.total - used), max(0.0, self.in_turn - used), self.due_us)

    def behind(self, express: float) -> "Allowance":
        """What is left in a transaction that carries so many bytes of express: what goes in turn is sure."""
        return self._replace(total=max(self.in_turn, self.total - express))


class Pending:
    """All that waits in one shard."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Group, str], PendingTable] = {}

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(table.rows for table in self._tables.values())

    def rows_of(self, name: str) -> int:
        """Rows of one table that wait."""
        return sum(table.rows for (_, at), table in self._tables.items() if at == name)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(table.nbytes for table in self._tables.values())

    def nbytes_with(self, group: Group, table: str, updates: RowUpdates) -> int:
        """Bytes of memory held at most once these updates are added."""
        known = self._tables.get((group, table))
        there = known or PendingTable(updates.deltas.shape[1])
        return self.nbytes - (known.nbytes if known else 0) + there.nbytes_with(len(updates))

    @property
    def oldest_us(self) -> int:
        """When the oldest delta that waits was published; the far future if none does."""
        return min((table.oldest_us for table in self._tables.values()), default=FAR_FUTURE_US)

    @property
    def oldest_arrival(self) -> int | None:
        """The oldest epoch in which something that waits arrived."""
        return min((group.arrival for (group, _), table in self._tables.items() if table.rows), default=None)

    def waits(self, arrival: int) -> bool:
        """Whether anything waits that arrived in this epoch."""
        return any(table.rows and group.arrival == arrival for (group, _), table in self._tables.items())

    def drop_arrival(self, arrival: int) -> None:
        """Forget what arrived in this epoch."""
        self._tables = {at: table for at, table in self._tables.items() if at[0].arrival != arrival}

    def add(self, group: Group, table: str, updates: RowUpdates) -> None:
        """Add deltas to what waits."""
        if (group, table) not in self._tables:
            self._tables[group, table] = PendingTable(updates.deltas.shape[1])
        self._tables[group, table].add(updates)

    def tables(self) -> Mapping[tuple[Group, str], PendingTable]:
        """Everything, by group and table."""
        return self._tables

    def some(self, chosen: Callable[[Group, str], bool]) -> "Pending":
        """A part of what waits, by group and table: taken from there, it waits here no longer either."""
        part = Pending()
        part._tables = {at: table for at, table in self._tables.items() if chosen(*at)}
        return part

    def compact(self) -> None:
        """Release the memory of rows that do not wait, see `PendingTable.compact`."""
        for table in self._tables.values():
            table.compact()

    def unite(self, group_of: Callable[[Group], Group]) -> None:
        """From now on `group_of` says which sums are one."""
        united: dict[tuple[Group, str], PendingTable] = {}
        for (group, name), table in sorted(self._tables.items(), key=lambda item: item[0]):
            first = united.setdefault((group_of(group), name), table)
            if first is not table:
                first.take_over(table)
        self._tables = united

    def adopt(self, other: "Pending") -> None:
        """Let what waits in `other` wait here: groups of which nothing waits here. `other` is used up."""
        self._tables |= other.tables()

    def subtract(self, group: Group, table: str, keys: UInt64s, deltas: Int32s) -> None:
        """Take back what has been sent.

        Raises:
            GapError: something was sent that never arrived.
        """
        waiting = self._tables.get((group, table))
        if waiting is None or not waiting.subtract(keys, deltas):
            raise GapError(
                f"table {table}, arrival epoch {group.arrival}: the lanes hold rows that the source log does not",
                hint="the source log is not the one that the lanes were written from; nothing was changed",
            )

    def take_with(self, group: Group, table: str, updates: RowUpdates) -> tuple[RowUpdates, Bools]:
        """See `PendingTable.take_with`."""
        waiting = self._tables.get((group, table))
        return (updates, np.zeros(len(updates), np.bool_)) if waiting is None else waiting.take_with(updates)

    def take(self, allowance: Allowance) -> Iterator[tuple[Group, str, RowUpdates]]:
        """Rows for at most `allowance` on the wire: all of them if they fit, else some in turn, and the most changed.

        An allowance above 0 lets at least one row go, however small it is: rows are not cut in pieces. Yields group,
        table and rows; each part also counts PART_BYTES for its record's head.
        """
        if allowance.total <= 0:
            return
        everything = sum(PART_BYTES + table.most_bytes for table in self._tables.values() if table.rows)
        in_turn = allowance.total if everything <= allowance.total else allowance.in_turn
        used, at_least = 0, 1
        if in_turn > 0:
            for group, name, updates in self._take_in_turn(in_turn):
                used, at_least = used + PART_BYTES + updates.wire_bytes, 0
                yield group, name, updates
        if self.rows:
            yield from self._take_largest(allowance.total - used, at_least, allowance.due_us)

    def _take_in_turn(self, budget_bytes: float) -> Iterator[tuple[Group, str, RowUpdates]]:
        """What arrived first goes first, within a table in turn."""
        at_least = 1
        order = sorted(self._tables.items(), key=lambda item: (item[0][0].arrival, item[1].oldest_us))
        for (group, name), table in order:
            updates = table.take_fitting(budget_bytes - PART_BYTES, at_least=at_least)
            if len(updates):
                at_least = 0
                budget_bytes -= PART_BYTES + updates.wire_bytes
                yield group, name, updates

    def _take_largest(self, budget_bytes: float, at_least: int, due_us: int) -> Iterator[tuple[Group, str, RowUpdates]]:
        """What is due goes first, and of it what has changed most, over all groups and tables."""
        parts = len(self._largest(budget_bytes, at_least, due_us))
        for at, slots in self._largest(budget_bytes - parts * PART_BYTES, at_least, due_us).items():
            updates = self._tables[at].take_slots_fitting(slots, budget_bytes - PART_BYTES, at_least=at_least)
            if len(updates):
                at_least = 0
                budget_bytes -= PART_BYTES + updates.wire_bytes
                yield *at, updates

    def _largest(self, budget_bytes: float, at_least: int, due_us: int) -> dict[tuple[Group, str], Indices]:
        """Slots by group and table, those that go first first, for about so many bytes."""
        tables = [(at, table, table.waiting()) for at, table in self._tables.items() if table.rows]
        if not tables or (budget_bytes <= 0 and not at_least):
            return {}
        changes = np.concatenate([table.changes(slots) for _, table, slots in tables]).astype(np.float64)
        due = np.concatenate([table.is_due(slots, due_us) for _, table, slots in tables])
        changes[due] += changes.max() + 1.0  # so that none which is not due is before one that is
        row_bytes = np.concatenate([np.full(len(slots), table.usual_row_bytes) for _, table, slots in tables])
        count = int(min(max(at_least, budget_bytes // row_bytes.min()), len(changes)))
        first = np.argpartition(-changes, count - 1)[:count] if count else np.empty(0, np.intp)
        first = first[np.argsort(-changes[first])]
        fits = int(np.searchsorted(np.cumsum(row_bytes[first]), budget_bytes, side="right"))
        chosen = first[: max(fits, at_least)]
        bounds = np.cumsum([0, *(len(slots) for _, _, slots in tables)])
        found = {}
        for number, (at, _, slots) in enumerate(tables):
            mine = chosen[(chosen >= bounds[number]) & (chosen < bounds[number + 1])] - bounds[number]
            if len(mine):
                found[at] = slots[mine]
        return found

    def drop(self, voids: tuple[EpochRange, ...]) -> None:
        """Forget what belongs to void epochs."""
        self._tables = {at: table for at, table in self._tables.items() if not is_void(at[0].effective, voids)}

    def drop_empty(self, current: int) -> None:
        """Release the memory of groups that arrived before epoch `current` and have nothing left to send."""
        self._tables = {at: table for at, table in self._tables.items() if table.rows or at[0].arrival >= current}
