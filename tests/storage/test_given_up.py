"""A flush that meets an undo while it is being copied: it has never been, and the next one takes all that it had."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.epochs import EpochRange
from ekko.storage.disk import flush
from ekko.storage.store import Store
from tests.simulation.durable import Disk, MemoryDurable
from tests.simulation.faults import Doom
from tests.storage.marks import check_what_is_not_dirty
from tests.storage.stores import LARGE, keys_of, opened, uniform_deltas
from tests.storage.test_store_machine import MODEL, joined
from tests.storage.truth import TruthStore

VOID = EpochRange(6, 7)


class Pair:
    """A store on a disk in memory, and what it must hold."""

    def __init__(self, disk: Disk) -> None:
        self.disk, self.truth = disk, TruthStore()
        self.store = self.opened()

    def opened(self) -> Store:
        keeper = MemoryDurable(self.disk, Doom())
        return Store.open(Path("nowhere"), MODEL, [0, 1], region_incarnation=3, memory_bytes=1 << 24, durable=keeper)

    def apply(self, effective: int, keys: list[int], value: int, arrival: int = 6) -> None:
        for table in MODEL.tables:
            deltas = np.full((len(keys), table.dim), value, np.int32)
            self.store.apply(table.name, arrival, effective, np.array(keys, np.uint64), deltas)
            self.truth.apply(table.name, effective, keys, map(tuple, deltas.tolist()), arrival)

    def compare(self) -> None:
        check_what_is_not_dirty(self.store)
        withdrawn = [state for states in self.store._directory.withdrawn for state in range(states[0], states[1] + 1)]
        for table in MODEL.tables:
            for as_of in (None, *(state for state in range(self.store.bound, 9) if state not in withdrawn)):
                keys, rows = joined(self.store, table, as_of)
                assert dict(zip(keys, rows, strict=True)) == self.truth.rows(table.name, as_of), (table.name, as_of)

    def reopen(self) -> None:
        """What is on disk, and nothing else."""
        self.store.close()
        self.store = self.opened()


def trained() -> Pair:
    """Some epochs are on disk, some of their rows are changed since, and newer ones are not."""
    pair = Pair(Disk())
    for epoch in (1, 2, 3):
        pair.apply(epoch, [1, 2, 3, 4 + epoch], 10**epoch, epoch)
    pair.store.flush(pair.store.state)
    for epoch in (4, 5, 6):
        pair.apply(epoch, [1, 3, 4 + epoch, 20], 10**epoch, epoch)
    pair.apply(2, [2, 21], 7)
    pair.apply(6, [7], -(10**3))
    return pair


def nothing(pair: Pair) -> None:
    del pair


def deltas(pair: Pair) -> None:
    pair.apply(6, [1, 2, 30], 3)
    pair.apply(1, [1, 3, 31], 5)


def a_union_into_what_is_copied(pair: Pair) -> None:
    """Key 8 gets an entry of epoch 5, which then takes over the value, and the mark, of its older one."""
    pair.apply(5, [1, 2, 8, 22], 9)
    pair.store.withdraw([EpochRange(5, 5)])


def a_bound(pair: Pair) -> None:
    """Entries are freed while they are pending or copied, and used again."""
    pair.store.raise_bound(4)
    pair.apply(7, [1, 2, 3, 40, 41], 2, 7)


def an_undo_before(pair: Pair) -> None:
    """And a flush that begins anew, and is given up in its turn."""
    pair.store.undo(EpochRange(4, 4))
    pair.truth.undo(EpochRange(4, 4))
    pair.apply(7, [1, 2, 42], 2, 7)
    pair.store.begin_flush(pair.store.state)


CHANGES = (nothing, deltas, a_union_into_what_is_copied, a_bound, an_undo_before)


@pytest.mark.parametrize("change", CHANGES)
def test_it_is_as_if_it_had_not_begun_wherever_its_copying_was(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Pair], None]
) -> None:
    monkeypatch.setattr(flush, "_COPIED_AT_ONCE", 1)
    assert give_up_wherever([change]) >= 40


def give_up_wherever(changes: Sequence[Callable[[Pair], None]]) -> int:
    """Give a flush up at every point of its copying, with each of the changes; how many points there were."""
    points = 0
    for change in changes:
        for copied in count():
            if not give_up_after(copied, change):
                break
            points += 1
    return points


def give_up_after(copied: int, change: Callable[[Pair], None]) -> bool:
    """Give a flush up after so many rows and entries, the change in the midst of them; whether it was copied as far."""
    pair = trained()
    pair.store.begin_flush(pair.store.state)
    for step in range(copied):
        if step == copied // 2:
            change(pair)
        pair.store.poll_flush()
    before = pair.store.flushed
    given_up = bool(pair.store._flusher._copying)
    pair.store.undo(VOID)
    pair.truth.undo(VOID)
    assert pair.store.flushing != given_up
    if given_up:
        assert pair.store.flushed is before
        pair.compare()
        pair.apply(8, [1, 50], 4, 8)
        pair.store.flush(pair.store.state)
        pair.reopen()
        pair.compare()
    pair.store.close()
    return given_up


def test_it_is_due_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flush, "_COPIED_AT_ONCE", 1)
    pair = trained()
    assert [pair.store.flush_due(now) for now in (10.0, 12.0)] == [False, True]
    pair.store.begin_flush(pair.store.state)
    assert not pair.store.flush_due(12.5)
    pair.store.undo(EpochRange(9, 9))
    assert pair.store.flushing, "there was nothing to undo"
    pair.store.undo(VOID)
    assert not pair.store.flushing
    assert pair.store.flush_due(12.6)
    pair.store.close()


def test_its_memory_serves_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.arange(LARGE, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 1, 1, keys, uniform_deltas(LARGE))
        monkeypatch.setattr(flush, "_COPIED_AT_ONCE", LARGE - 1)
        held = set()
        for epoch in range(2, 6):
            store.apply("embedding", epoch, epoch, keys_of(epoch), uniform_deltas(1))
            store.begin_flush(store.state)
            store.undo(EpochRange(epoch, epoch))
            assert not store.flushing
            held.add(store._durable.memory_bytes() // (LARGE * 64 * 4))
        assert held == {2}, "rows and entries of one flush"
        store.flush(store.state)
    with opened(tmp_path / "store") as store:
        assert (store.lookup("embedding", keys)[0] == 1).all()
        assert not store.lookup("embedding", keys, 1)[0].any()


def test_one_that_is_being_committed_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 1, 1, keys_of(1, 2), uniform_deltas(2))
        store.begin_flush(store.state)
        store.undo(EpochRange(1, 1))
        assert store.flushing
        while not store.poll_flush():
            pass
        assert store.flushed is not None
        assert store.flushed.voids == ()
    with opened(tmp_path / "store") as store:
        assert (store.lookup("embedding", keys_of(1, 2))[0] == 1).all()
