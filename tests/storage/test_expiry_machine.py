"""The store against dicts and integers, once more: rows that rest expire, and deltas are retracted, also then."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.storage.test_store_machine import MODEL, QUICK, StoreMachine, joined
from tests.storage.truth import signed

if TYPE_CHECKING:
    from ekko.schemas.declarations import TableDeclaration

Row = tuple[int, ...]


class ExpiryMachine(StoreMachine):
    """All rules of `StoreMachine`, and those of operations on what was learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.expired: list[tuple[str, int, frozenset[int]]] = []

    def idle(self, table: "TableDeclaration", since: int) -> dict[int, Row]:
        """Rows into which nothing has arrived since, by the truth."""
        arrivals = self.truth.arrivals
        return {key: row for key, row in self.truth.rows(table.name).items() if arrivals[table.name, key] < since}

    def change(self, table: "TableDeclaration", effective: int, rows: dict[int, Row]) -> None:
        keys, deltas = np.array(list(rows), np.uint64), np.array(list(rows.values()), np.int64).astype(np.int32)
        self.store.apply(table.name, self.epoch, effective, keys, deltas)
        self.truth.apply(table.name, effective, rows, rows.values(), self.epoch)

    @rule(table=st.sampled_from(MODEL.tables), back=st.integers(0, 3))
    def expire_idle(self, table: "TableDeclaration", back: int) -> None:
        """The negatives of rows that rest, read from the store itself; they belong to the epoch of their arrival."""
        rows = dict(zip(*joined(self.store, table, None, self.epoch - back), strict=True))
        if not rows or self.truth.is_void(self.epoch):
            return
        self.change(table, self.epoch, {key: tuple(signed(-value) for value in row) for key, row in rows.items()})
        _, found = self.store.lookup(table.name, np.array(list(rows), np.uint64))
        assert not found.any()
        self.expired.append((table.name, self.epoch, frozenset(rows)))

    @precondition(lambda self: self.truth.contributions)
    @rule(data=st.data())
    def retract(self, data: st.DataObject) -> None:
        """Take one delta back in the epoch to which it belongs, and give it back to the expiry that took it already."""
        name, effective, key, delta = data.draw(st.sampled_from(self.truth.contributions))
        table = MODEL.table(name)
        self.change(table, effective, {key: tuple(signed(-value) for value in delta)})
        later = [
            epoch for expired, epoch, keys in self.expired if expired == name and key in keys and epoch > effective
        ]
        if later and not self.truth.is_void(later[0]):
            self.change(table, later[0], {key: delta})

    @rule()
    def stop_and_reopen(self) -> None:
        """An orderly end: nothing is lost."""
        self.flush()
        before = self.truth
        self.kill_and_reopen()
        assert self.truth.contributions == before.contributions

    @invariant()
    def idle_rows_are_right(self) -> None:
        for table in MODEL.tables:
            for since in range(max(0, self.epoch - 3), self.epoch + 2):
                keys, rows = joined(self.store, table, None, since)
                assert dict(zip(keys, rows, strict=True)) == self.idle(table, since), (table.name, since)


ExpiryMachine.TestCase.settings = QUICK
TestExpiry = ExpiryMachine.TestCase
TestExpiry.pytestmark = pytest.mark.timeout(600)
