"""The store against dicts and integers: deltas early and late, undo, thinning, flushes, kills, reopening."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StateUnavailable
from ekko.storage.disk import flush
from ekko.storage.disk.durable import Durable
from ekko.storage.disk.rocks import RocksDurable
from ekko.storage.engine.chains import oldest_since
from ekko.storage.store import Store
from tests.simulation.durable import Disk, MemoryDurable
from tests.simulation.faults import Doom
from tests.storage.marks import check_what_is_not_dirty
from tests.storage.truth import TruthStore, signed

MODEL = ModelDeclaration("ctr", 2, 1, (TableDeclaration("wide", 3), TableDeclaration("narrow", 1)), incarnation=7)
KEYS = st.sampled_from([0, 1, 1 << 32, 1 << 63, (1 << 64) - 1])
VALUES = st.one_of(st.integers(-3, 3), st.integers(-(1 << 31), (1 << 31) - 1))


def batches(dim: int) -> st.SearchStrategy[list[tuple[int, tuple[int, ...]]]]:
    return st.lists(st.tuples(KEYS, st.tuples(*[VALUES] * dim)), min_size=1, max_size=6)


class StoreMachine(RuleBasedStateMachine):
    """Rules of what a replica goes through; the invariant compares every row at every state it may be asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.store = self.opened()
        self.truth, self.durable_truth = TruthStore(), TruthStore()
        self.epoch = 0
        self.unlearnt: list[EpochRange] = []
        self.withdrawn: set[int] = set()
        self.kept_voids: set[EpochRange] = set()
        self.durable_pin: int | None = None
        self.flushing: tuple[TruthStore, int | None] | None = None

    def keeper(self) -> Durable:
        return MemoryDurable(self.disk, Doom())

    def opened(self) -> Store:
        path = Path("nowhere")
        return Store.open(path, MODEL, [0, 1], region_incarnation=3, memory_bytes=1 << 24, durable=self.keeper())

    @initialize()
    def begin(self) -> None:
        assert self.store.flushed is None

    @rule(
        table=st.sampled_from(MODEL.tables),
        lates=st.lists(st.sampled_from([0, 0, 1, 2, 5]), min_size=1),
        data=st.data(),
    )
    def apply(self, table: TableDeclaration, lates: list[int], data: st.DataObject) -> None:
        for late in lates[:4]:
            batch = data.draw(batches(table.dim))
            effective = max(0, self.epoch - late)
            keys, deltas = [key for key, _ in batch], [delta for _, delta in batch]
            rows = np.array(deltas, np.int64).astype(np.int32)
            self.store.apply(table.name, self.epoch, effective, np.array(keys, np.uint64), rows)
            self.truth.apply(table.name, effective, keys, deltas, self.epoch)

    @rule(epochs=st.integers(1, 4), data=st.data())
    def train(self, epochs: int, data: st.DataObject) -> None:
        """The ordinary course: an epoch after the other, each with deltas for some of the keys."""
        for _ in range(epochs):
            self.apply(data.draw(st.sampled_from(MODEL.tables)), [0, 0], data)
            self.epoch += 1

    @rule(table=st.sampled_from(MODEL.tables), effective=st.integers(0, 30))
    def take_all_back(self, table: TableDeclaration, effective: int) -> None:
        """Exact negatives: afterwards the table is empty."""
        rows = self.truth.rows(table.name)
        effective = min(effective, self.epoch)
        if not rows or self.truth.is_void(effective):
            return
        negatives = [tuple(signed(-value) for value in row) for row in rows.values()]
        taken = np.array(list(rows), np.uint64), np.array(negatives, np.int64).astype(np.int32)
        self.store.apply(table.name, self.epoch, effective, *taken)
        self.truth.apply(table.name, effective, rows, negatives, self.epoch)
        assert self.store.row_count(table.name) == 0

    @rule()
    def barrier(self) -> None:
        self.epoch += 1

    @rule(back=st.integers(0, 4))
    def roll_back(self, back: int) -> None:
        """A void is decided; the store learns it by a later rule, in any order."""
        first = max(self.store.bound, self.epoch - back)
        if first in self.withdrawn or first > self.epoch:
            return
        self.unlearnt.append(EpochRange(first, self.epoch))
        self.epoch += 1

    @precondition(lambda self: self.unlearnt)
    @rule(data=st.data())
    def learn(self, data: st.DataObject) -> None:
        void = self.unlearnt.pop(data.draw(st.integers(0, len(self.unlearnt) - 1)))
        given_up = self.copying and any(label in void for label in self.store._directory.labels)
        self.store.undo(void)
        assert self.store.undo(void) == 0
        self.truth.undo(void)
        self.notice(given_up=given_up)

    @precondition(lambda self: not self.unlearnt)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, self.epoch))
        self.withdraw_states(EpochRange(first, min(self.epoch, first + data.draw(st.integers(0, 2)))))

    def withdraw_states(self, states: EpochRange) -> None:
        if self.store.pinned is not None and self.store.pinned in states:
            with pytest.raises(StateUnavailable):
                self.store.withdraw([states])
            return
        self.withdrawn.update(range(states.first, states.last + 1))
        self.store.withdraw([states])

    @rule(back=st.integers(2, 6))
    def raise_bound(self, back: int) -> None:
        oldest = min([void.first for void in self.unlearnt], default=self.epoch)
        state = min(oldest, self.epoch - back)
        if state > self.store.bound and state not in self.withdrawn:
            self.store.raise_bound(state)
            assert self.store.bound in (state, self.store.pinned)

    @rule(back=st.integers(-1, 5))
    def pin(self, back: int) -> None:
        state = max(self.store.bound, self.epoch - back)
        if state in self.withdrawn:
            with pytest.raises(StateUnavailable):
                self.store.pin(state)
        else:
            self.store.pin(state)
            assert self.store.pinned == state

    @rule()
    def unpin(self) -> None:
        self.store.unpin()
        assert self.store.pinned is None

    @rule()
    def flush(self) -> None:
        self.store.flush(self.store.state)
        self.durable_truth, self.durable_pin = self.truth.copy(), self.store.pinned
        self.flushing = None

    @rule(steps=st.sampled_from([0, 0, 1, 3]))
    def begin_flush(self, steps: int) -> None:
        """Hold on to this moment, and copy none of it or only a few rows: what follows must not change it."""
        if self.flushing is not None:
            self.finish_flush()
        with mock.patch.object(flush, "_COPIED_AT_ONCE", steps):
            self.store.begin_flush(self.store.state)
        self.flushing = self.truth.copy(), self.store.pinned

    @precondition(lambda self: self.flushing)
    @rule()
    def copy_some(self) -> None:
        with mock.patch.object(flush, "_COPIED_AT_ONCE", 2):
            if self.store.poll_flush():
                self.finish_flush()

    @property
    def copying(self) -> bool:
        return bool(self.store._flusher._copying)

    def notice(self, *, given_up: bool) -> None:
        """A flush that was given up has never been; one that is copied goes on."""
        if given_up:
            self.flushing = None
        assert self.store.flushing == (self.flushing is not None)

    @precondition(lambda self: self.flushing)
    @rule()
    def finish_flush(self) -> None:
        while not self.store.poll_flush():
            pass
        if self.flushing is not None:
            (self.durable_truth, self.durable_pin), self.flushing = self.flushing, None

    @rule()
    def keep_voids(self) -> None:
        """What was undone is durable before the next flush, in what the last one left."""
        if self.store.flushed is None and self.flushing is not None:
            self.finish_flush()
        self.store.keep_voids()
        if self.store.flushed is not None:
            self.kept_voids = set(self.truth.voids)

    @rule(back=st.integers(0, 3))
    def let_values_go(self, back: int) -> None:
        """What memory pressure does to old journals, from whatever epoch on."""
        for table in self.store._tables.values():
            table.let_go(self.epoch - back)

    @rule()
    def kill_and_reopen(self) -> None:
        """What was not flushed is gone; the lanes bring it again (here: they do not, and time goes on)."""
        if self.flushing is not None:
            self.finish_flush()
        for void in self.kept_voids:
            self.durable_truth.undo(void)
        lost = [void for void in self.truth.voids if void not in self.durable_truth.voids]
        self.store.close()
        recoverable = self.store.recoverable
        self.store = self.opened()
        assert recoverable is None or set(self.store.state.voids) == set(recoverable.voids)
        assert (self.store.pinned is None) == (self.durable_pin is None)
        self.truth = self.durable_truth.copy()
        self.withdrawn.update(*(range(states.first, states.last + 1) for states in self.store._directory.withdrawn))
        if self.store.pinned in self.withdrawn:
            self.store.unpin()
        self.store.withdraw([EpochRange(state, state) for state in sorted(self.withdrawn)] if not lost else [])
        for void in lost:
            if void.first >= self.store.bound:
                self.unlearnt.append(void)
        if lost:
            self.withdrawn = {state for run in self.store._directory.withdrawn for state in range(run[0], run[1] + 1)}

    @invariant()
    def rows_are_right(self) -> None:
        for table in MODEL.tables:
            for as_of in (None, *range(self.store.bound, self.epoch + 2)):
                if as_of is not None and as_of in self.withdrawn:
                    with pytest.raises(StateUnavailable):
                        self.store.lookup(table.name, np.array([1], np.uint64), as_of)
                    continue
                keys, rows = joined(self.store, table, as_of)
                assert dict(zip(keys, rows, strict=True)) == self.truth.rows(table.name, as_of), (table.name, as_of)

    @invariant()
    def the_pinned_state_is_whole_and_in_memory(self) -> None:
        state = self.store.pinned
        for table in self.store._tables.values():
            assert table.pinned.state == state
            if state is None:
                continue
            slots = np.arange(table.arena.top)
            entries = table.pinned.entries(slots)
            assert (entries == oldest_since(table.arena, table.pool, slots, state)).all()
            assert table.pinned.count == (entries >= 0).sum()
            assert table.pool.places.take(entries[entries >= 0]).all()

    @invariant()
    def what_is_not_dirty_is_on_disk(self) -> None:
        check_what_is_not_dirty(self.store)

    def teardown(self) -> None:
        self.store.close()


class RocksMachine(StoreMachine):
    """The same on RocksDB."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__()

    def keeper(self) -> Durable:
        return RocksDurable(Path(self.folder.name) / "store")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


def joined(
    store: Store, table: TableDeclaration, as_of: int | None, idle_since: int | None = None
) -> tuple[list[int], list[tuple[int, ...]]]:
    keys: list[int] = []
    rows: list[tuple[int, ...]] = []
    for some_keys, some_rows in store.items(table.name, as_of, idle_since=idle_since):
        keys += some_keys.tolist()
        rows += [tuple(row) for row in some_rows.tolist()]
    return keys, rows


QUICK = settings(max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
StoreMachine.TestCase.settings = QUICK
RocksMachine.TestCase.settings = settings(QUICK, max_examples=8)
TestStore = StoreMachine.TestCase
TestRocksStore = RocksMachine.TestCase
TestStore.pytestmark = TestRocksStore.pytestmark = pytest.mark.timeout(600)  # some seconds on a machine at rest
