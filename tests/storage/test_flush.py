"""What a flush writes: all that changed since the one before, nothing else, and as it was at the moment it began."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StoreUnwritable
from ekko.storage.disk import flush
from ekko.storage.store import Store
from tests.storage.stores import keys_of, opened, uniform_deltas

if TYPE_CHECKING:
    from ekko.storage.disk.durable import Batch

COUNT = 200
KEYS = np.arange(COUNT, dtype=np.uint64)


def apply(store: Store, arrival: int, effective: int, value: int) -> None:
    store.apply("embedding", arrival, effective, KEYS, uniform_deltas(COUNT, value))


def written_by(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[bytes, int]:
    """Cells that a flush writes now, by the first letter of where they stand: rows and journals."""
    batches: list[Batch] = []
    commit = store._durable.commit
    with monkeypatch.context() as patch:
        patch.setattr(store._durable, "commit", lambda batch: (batches.append(batch), commit(batch)))
        store.flush(store.state)
    (batch,) = batches
    return {kind: sum(len(c.keys) for c in batch.cells if c.prefix.startswith(kind)) for kind in (b"R", b"J")}


def test_what_did_not_change_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path / "store") as store:
        apply(store, 1, 1, 1)
        assert written_by(store, monkeypatch) == {b"R": COUNT, b"J": COUNT}
        assert written_by(store, monkeypatch) == {b"R": 0, b"J": 0}
        store.apply("embedding", 2, 2, keys_of(5), uniform_deltas(1))
        assert written_by(store, monkeypatch) == {b"R": 1, b"J": 1}
        store.apply("embedding", 2, 1, keys_of(5, 6), uniform_deltas(2))  # late: key 5 has a later entry, key 6 none
        assert written_by(store, monkeypatch) == {b"R": 2, b"J": 1}
        assert written_by(store, monkeypatch) == {b"R": 0, b"J": 0}
    with opened(tmp_path / "store") as store:
        assert written_by(store, monkeypatch) == {b"R": 0, b"J": 0}, "what was read back is on disk"


def test_what_a_failed_commit_held_is_written_again_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "store") as store:
        apply(store, 1, 1, 1)
        store.flush(store.state)
        store.apply("embedding", 2, 2, keys_of(5, 6), uniform_deltas(2))
        with monkeypatch.context() as patch:
            patch.setattr("ekko.storage.disk.rocks.write_files", refuse)
            with pytest.raises(StoreUnwritable):
                store.flush(store.state)
        store.apply("embedding", 2, 2, keys_of(6, 7), uniform_deltas(2))
        assert written_by(store, monkeypatch) == {b"R": 3, b"J": 3}
        assert written_by(store, monkeypatch) == {b"R": 0, b"J": 0}


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no space is left")


@pytest.mark.parametrize(
    "change",
    [
        lambda store: apply(store, 3, 3, 5),
        lambda store: apply(store, 3, 1, 5),
        lambda store: store.withdraw([EpochRange(2, 2)]),
        lambda store: store.raise_bound(2),
    ],
    ids=["a delta", "a late delta", "a union", "a bound"],
)
def test_a_commit_holds_the_moment_at_which_its_flush_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Store], object]
) -> None:
    monkeypatch.setattr(flush, "_COPIED_AT_ONCE", 10)
    with opened(tmp_path / "store") as store:
        apply(store, 1, 1, 1)
        apply(store, 2, 2, 1)
        store.begin_flush(store.state)
        change(store)
        while not store.poll_flush():
            pass
    with opened(tmp_path / "store") as store:
        assert [int(store.lookup("embedding", KEYS, state)[0].sum()) for state in (1, 2, 3)] == [
            value * store.lookup("embedding", KEYS)[0].size for value in (0, 1, 2)
        ]
        assert (store.lookup("embedding", KEYS)[0] == 2).all()


def test_a_key_without_a_row_keeps_the_epoch_in_which_it_lost_it(tmp_path: Path) -> None:
    """Else a start would take it for idle, and an expiry as of an earlier state would take its row away twice."""
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 1, 1, keys_of(7, 8), uniform_deltas(2, 3))
        store.apply("embedding", 4, 4, keys_of(7), uniform_deltas(1, -3))
        store.flush(store.state)
    with opened(tmp_path / "store") as store:

        def idle(since: int) -> list[int]:
            runs = store.items("embedding", 2, idle_since=since)
            return [key for keys, _ in runs for key in keys.tolist()]

        assert idle(1) == []
        assert idle(4) == [8]
        assert sorted(idle(5)) == [7, 8]
