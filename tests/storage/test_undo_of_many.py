"""Undo of more keys than are looked at in one go: every key has its own epochs, so parts begin and end amid a key's."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.storage.disk import flush
from ekko.storage.store import Store
from tests.storage.stores import opened

DIM = 4
KEYS = 30_000
EPOCHS = range(1, 6)
SEED = 20_261_126
MODEL = ModelDeclaration("ctr", 2, 1, (TableDeclaration("embedding", DIM),), incarnation=7)

Contributions = dict[int, npt.NDArray[np.int32]]
"""By epoch, what every key got; 0 for nothing."""


def trained(store: Store, *, late: bool) -> Contributions:
    """Two of three keys get something in an epoch, in no order; with `late` some get more, for older ones, at last."""
    rng = np.random.default_rng(SEED)
    found: Contributions = {epoch: np.zeros(KEYS, dtype=np.int32) for epoch in EPOCHS}
    arrivals = [(epoch, epoch) for epoch in EPOCHS] + [(EPOCHS[-1], epoch) for epoch in (3, 1) if late]
    for arrival, effective in arrivals:
        keys = rng.permutation(KEYS)[: 2 * KEYS // 3]
        values = rng.integers(1, 1 << 20, len(keys), dtype=np.int32)
        found[effective][keys] += values
        for part in np.array_split(np.arange(len(keys)), 5):
            deltas = np.repeat(values[part, None], DIM, axis=1)
            store.apply("embedding", arrival, effective, keys[part].astype(np.uint64), deltas)
    return found


def expect(store: Store, contributions: Contributions, void: EpochRange) -> None:
    """What every key is, and was at the start of every state, is the sum of what is not void."""
    keys = np.arange(KEYS, dtype=np.uint64)
    for state in (*EPOCHS, None):
        counted = (it for epoch, it in contributions.items() if epoch not in void and (state is None or epoch < state))
        expected = np.repeat(sum(counted, start=np.zeros(KEYS, dtype=np.int32))[:, None], DIM, axis=1)
        np.testing.assert_array_equal(store.lookup("embedding", keys, state)[0], expected, err_msg=f"state {state}")


@pytest.mark.parametrize("void", [EpochRange(4, 5), EpochRange(2, 4), EpochRange(1, 5), EpochRange(3, 3)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("on_disk", [False, True])
def test_every_key_is_what_it_was(tmp_path: Path, void: EpochRange, late: bool, on_disk: bool) -> None:
    with opened(tmp_path / "store", MODEL) as store:
        contributions = trained(store, late=late)
        touched = sum(contributions[epoch] != 0 for epoch in EPOCHS if epoch in void)
        if on_disk:
            store.flush(store.state)
            store._tables["embedding"].let_go(9)
        assert store.undo(void) == np.count_nonzero(touched)
        expect(store, contributions, void)


@pytest.mark.parametrize("copied", [False, True])
def test_undo_amid_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool) -> None:
    """One that is copied keeps what was captured, and a start undoes it again; one that is not has never been."""
    void = EpochRange(3, 5)
    with opened(tmp_path / "store", MODEL) as store:
        contributions = trained(store, late=True)
        monkeypatch.setattr(flush, "_COPIED_AT_ONCE", 1 << 20 if copied else 1 << 10)
        store.begin_flush(store.state)
        store.undo(void)
        expect(store, contributions, void)
        assert store.flushing == copied
        if not copied:
            store.begin_flush(store.state)
        while not store.poll_flush():
            pass
        assert store.flushed is not None
        assert store.flushed.voids == (() if copied else (void,))
        store.keep_voids()
    with opened(tmp_path / "store", MODEL) as store:
        expect(store, contributions, void)


def test_entries_that_were_given_back_serve_again(tmp_path: Path) -> None:
    with opened(tmp_path / "store", MODEL) as store:
        contributions = trained(store, late=False)
        table = store._tables["embedding"]
        top = table.pool.top
        for epoch in range(6, 9):
            keys = np.random.default_rng(epoch).permutation(KEYS)
            store.apply("embedding", epoch, epoch, keys.astype(np.uint64), np.ones((KEYS, DIM), dtype=np.int32))
            assert store.undo(EpochRange(epoch, epoch)) == KEYS
        assert table.pool.top == top + KEYS
        expect(store, contributions, EpochRange(6, 8))
