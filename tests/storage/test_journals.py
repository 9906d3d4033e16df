"""Epoch journals by example: one key, deltas of powers of ten, so that every sum shows what is in it."""

from pathlib import Path

import pytest

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StateUnavailable
from ekko.storage.store import Store
from tests.storage.stores import keys_of, opened, uniform_deltas

KEY = keys_of(77)


def add(store: Store, arrival: int, effective: int, value: int) -> None:
    store.apply("embedding", arrival, effective, KEY, uniform_deltas(1, value))


def value(store: Store, as_of: int | None = None) -> int:
    return int(store.lookup("embedding", KEY, as_of)[0][0, 0])


def trained(store: Store, *, flushed: bool) -> None:
    """Epoch e adds 10**e, for e in 1..4; with values on disk only, if flushed."""
    for epoch in range(1, 5):
        add(store, epoch, epoch, 10**epoch)
    if flushed:
        store.flush(store.state)
        store._tables["embedding"].let_go(9)


@pytest.mark.parametrize("flushed", [False, True])
def test_a_void_learnt_late_leaves_later_and_earlier_epochs(tmp_path: Path, flushed: bool) -> None:
    with opened(tmp_path / "store") as store:
        trained(store, flushed=flushed)
        store.undo(EpochRange(2, 3))
        assert [value(store, state) for state in (1, 2, 3, 4, 5)] == [0, 10, 10, 10, 10_010]
        assert value(store) == 10_010
        add(store, 5, 1, 5)
        assert [value(store, state) for state in (1, 2, 4, 5)] == [0, 15, 15, 10_015]
        store.undo(EpochRange(1, 4))
        assert value(store) == 0


@pytest.mark.parametrize("flushed", [False, True])
def test_a_delta_of_an_epoch_before_an_undone_one_is_journalled(tmp_path: Path, flushed: bool) -> None:
    with opened(tmp_path / "store") as store:
        add(store, 4, 4, 10_000)
        if flushed:
            store.flush(store.state)
        store.undo(EpochRange(4, 4))
        add(store, 5, 2, 100)
        assert [value(store, state) for state in (2, 3)] == [0, 100]
        store.undo(EpochRange(2, 5))
        assert value(store) == 0


@pytest.mark.parametrize("flushed", [False, True])
def test_deltas_and_retractions_of_void_epochs_are_dropped_and_undo_is_idempotent(
    tmp_path: Path, flushed: bool
) -> None:
    with opened(tmp_path / "store") as store:
        trained(store, flushed=flushed)
        assert store.undo(EpochRange(3, 4)) == 1
        assert store.undo(EpochRange(3, 4)) == 0
        add(store, 5, 3, 7)
        add(store, 4, 4, 7)
        assert value(store) == 110
        assert store.undo(EpochRange(1, 4)) == 1
        assert value(store) == 0
        assert store.voids == (EpochRange(3, 4), EpochRange(1, 4))


@pytest.mark.parametrize("flushed", [False, True])
def test_journals_on_both_sides_of_a_withdrawn_state_are_one(tmp_path: Path, flushed: bool) -> None:
    with opened(tmp_path / "store") as store:
        trained(store, flushed=flushed)
        store.withdraw([EpochRange(2, 3)])
        assert [value(store, state) for state in (1, 4, 5)] == [0, 1_110, 11_110]
        with pytest.raises(StateUnavailable):
            store.undo(EpochRange(3, 4))
        add(store, 5, 3, 5)
        assert [value(store, state) for state in (1, 4)] == [0, 1_115]
        store.flush(store.state)
    with opened(tmp_path / "store") as store:
        assert [value(store, state) for state in (1, 4, 5)] == [0, 1_115, 11_115]
        store.undo(EpochRange(1, 4))
        assert value(store) == 0


def test_below_the_bound_deltas_count_but_cannot_be_taken_back(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        trained(store, flushed=False)
        store.raise_bound(3)
        add(store, 5, 1, 5)
        assert value(store) == 11_115
        assert [value(store, state) for state in (3, 4)] == [115, 1_115]
        for void in (EpochRange(2, 4), EpochRange(1, 1)):
            with pytest.raises(StateUnavailable, match="bound 3"):
                store.undo(void)
        store.undo(EpochRange(3, 4))
        assert value(store) == 115


def test_withdrawing_the_bound_itself_raises_it(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        trained(store, flushed=False)
        store.raise_bound(2)
        store.withdraw([EpochRange(2, 2)])
        assert store.bound == 3
        assert value(store, 3) == 110
        store.undo(EpochRange(3, 4))
        assert value(store) == 110


@pytest.mark.parametrize("first", [3, 4])
def test_what_was_undone_is_undone_on_disk_too(tmp_path: Path, first: int) -> None:
    """Of an epoch that is the key's newest one, and of two epochs at once."""
    with opened(tmp_path / "store") as store:
        trained(store, flushed=True)
        store.undo(EpochRange(first, 4))
        store.flush(store.state)
    with opened(tmp_path / "store") as store:
        assert value(store) == sum(10**epoch for epoch in range(1, first))
        assert value(store, 2) == 10
