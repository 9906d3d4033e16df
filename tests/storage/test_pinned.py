"""The pinned state: in memory whatever memory pressure does, also for readers in other processes, until unpinned."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import MemoryExhausted, StateUnavailable
from ekko.schemas.replicas import ReplicaState
from ekko.storage.client.local_store import LocalStore
from ekko.storage.store import Store
from tests.storage.stores import MODEL, keys_of, open_store, opened, uniform_deltas

KEY = keys_of(77)


def trained(folder: Path) -> Store:
    """Epoch e in 1..4 adds 10**e to one key; the journals' values stand on disk only."""
    store = open_store(folder)
    for epoch in range(1, 5):
        store.apply("embedding", epoch, epoch, KEY, uniform_deltas(1, 10**epoch))
    store.flush(store.state)
    store._tables["embedding"].let_go(9)
    return store


def value(store: Store | LocalStore, state: int | None) -> int:
    answer = store.lookup("embedding", KEY, state)
    return int(answer[0][0, 0])


def complete(store: Store, state: int) -> ReplicaState:
    positions = {shard: replace(position, complete=state) for shard, position in store.state.shards.items()}
    return replace(store.state, shards=positions)


def test_other_processes_read_a_pinned_state_whose_journals_were_on_disk(tmp_path: Path) -> None:
    store = trained(tmp_path / "store")
    store.publish(complete(store, 5), serving=True)
    local = LocalStore(tmp_path, "ctr")
    with pytest.raises(StateUnavailable, match="on disk only"):
        value(local, 3)
    store.pin(3)
    assert value(local, 3) == 110
    store._tables["embedding"].let_go(9)
    assert value(local, 3) == 110
    store.apply("embedding", 5, 1, KEY, uniform_deltas(1, 5))  # late: it belongs to the past that is pinned
    assert value(local, 3) == value(store, 3) == 115
    store.undo(EpochRange(4, 4))
    assert (value(local, 3), value(local, None)) == (115, 1_115)
    local.close()
    store.close()


def test_a_void_that_spans_the_pinned_state_pins_its_own_beginning(tmp_path: Path) -> None:
    store = trained(tmp_path / "store")
    store.pin(3)
    store.undo(EpochRange(2, 3))
    assert store.pinned == 2
    assert value(store, 2) == 10
    assert value(store, None) == 10_010
    store.flush(store.state)
    store.close()
    with opened(tmp_path / "store") as again:
        assert again.pinned == 2
        assert value(again, 2) == 10


def test_a_pinned_state_is_not_given_up(tmp_path: Path) -> None:
    store = trained(tmp_path / "store")
    store.pin(3)
    with pytest.raises(StateUnavailable, match="pinned"):
        store.withdraw([EpochRange(2, 3)])
    assert value(store, 2) == 10
    store.raise_bound(5)
    assert store.bound == 3
    assert value(store, 3) == 110
    store.unpin()
    store.raise_bound(5)
    assert store.bound == 5
    with pytest.raises(StateUnavailable, match="bound"):
        store.pin(3)
    assert store.pinned is None
    store.close()


def test_a_table_that_comes_later_is_pinned_too(tmp_path: Path) -> None:
    store = trained(tmp_path / "store")
    store.pin(3)
    store.add_table(TableDeclaration("bias", 1))
    for epoch in (2, 3, 4):
        store.apply("bias", epoch, epoch, KEY, uniform_deltas(1, 10**epoch, dim=1))
    assert store.lookup("bias", KEY, 3)[0].tolist() == [[100]]
    store.close()


def test_what_does_not_fit_into_memory_is_not_pinned(tmp_path: Path) -> None:
    rows = 4_000
    keys = np.arange(rows, dtype=np.uint64)
    with opened(tmp_path / "store", memory_bytes=8 << 20) as store:
        store.apply("embedding", 1, 1, keys, uniform_deltas(rows))
        store.flush(store.state)
        store._tables["embedding"].let_go(9)
        with suppress(MemoryExhausted):
            for start in range(rows, 10 * rows, 100):
                store.apply("embedding", 2, 2, np.arange(start, start + 100, dtype=np.uint64), uniform_deltas(100))
        with pytest.raises(MemoryExhausted, match="state 1"):
            store.pin(1)
        assert store.pinned is None
        assert store.lookup("embedding", keys, 1)[1].sum() == 0


def best(read: Callable[[], object]) -> float:
    times = []
    for _ in range(30):
        begun = time.perf_counter()
        read()
        times.append(time.perf_counter() - begun)
    return min(times)


def test_reads_of_a_pinned_state_cost_little_more_than_reads_of_now(tmp_path: Path) -> None:
    rows = 20_000
    keys = np.arange(rows, dtype=np.uint64)
    model = replace(MODEL, tables=(TableDeclaration("embedding", 64),))
    with opened(tmp_path / "store", model) as store:
        for epoch in range(30):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(rows))
        store.flush(store.state)
        store._tables["embedding"].let_go(40)
        store.pin(5)
        asked = keys[::20].copy()
        now, pinned = 0.0, 1.0
        for _ in range(10):  # a busy machine may be in the way of one of the two
            if pinned >= 4 * now:
                now = best(lambda: store.lookup("embedding", asked))
                pinned = best(lambda: store.lookup("embedding", asked, 5))
        assert pinned < 4 * now, (pinned, now)
        assert (store.lookup("embedding", asked, 5)[0] == 5).all()
