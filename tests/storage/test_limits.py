"""What a store does at its limits: memory, journals, the range of int32; and what it counts as one row."""

import gc
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import BadInput, ConfigurationError, MemoryExhausted, StateUnavailable
from ekko.storage.engine.arena import row_bytes
from ekko.storage.engine.table import Table
from ekko.storage.store import Store
from tests.storage.stores import DIM, keys_of, opened, uniform_deltas

MIB = 1 << 20


def test_at_its_memory_bound_a_store_refuses_and_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store", memory_bytes=4 * MIB) as store:
        store.apply("embedding", 1, 1, np.arange(2_000, dtype=np.uint64), uniform_deltas(2_000))
        store.flush(store.state)
        before = store.checksum("embedding")
        with pytest.raises(MemoryExhausted) as caught:
            store.apply("embedding", 1, 1, np.arange(20_000, dtype=np.uint64), uniform_deltas(20_000))
        assert "4194304 bytes" in caught.value.message
        assert store.checksum("embedding") == before
        assert store.memory_bytes() <= 4 * MIB
        assert store.apply("embedding", 1, 1, keys_of(1, 2), uniform_deltas(2)) == 2


def test_old_journals_leave_memory_and_are_still_exact(tmp_path: Path) -> None:
    rows = 1_000
    keys = np.arange(rows, dtype=np.uint64)
    budget = 8 * MIB
    with opened(tmp_path / "store", memory_bytes=budget) as store:
        for epoch in range(20):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(rows, epoch + 1))
            store.flush(store.state)
        pool = store._tables["embedding"].pool
        assert pool.resident_bytes <= budget // 4
        assert pool.entries.count == 20 * rows
        for state in range(21):
            values, _ = store.lookup("embedding", keys, state)
            assert (values == state * (state + 1) // 2).all()
        store.apply("embedding", 19, 3, keys[:10], uniform_deltas(10, 1000))
        assert store.lookup("embedding", keys[:11], 4)[0][:, 0].tolist() == [1010] * 10 + [10]
        assert store.lookup("embedding", keys[:1], 3)[0][0, 0] == 6
        store.undo(EpochRange(2, 19))
        assert (store.lookup("embedding", keys)[0] == 3).all()


def test_when_journals_outgrow_the_disk_budget_the_oldest_states_go(tmp_path: Path) -> None:
    rows = 2_000
    keys = np.arange(rows, dtype=np.uint64)
    with opened(tmp_path / "store", memory_bytes=4 * MIB) as store:
        for epoch in range(20):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(rows))
            store.flush(store.state)
        assert store.bound > 5
        kept = store._tables["embedding"].pool.entries.count * DIM * 4
        assert kept <= 4 * MIB + rows * DIM * 4
        assert (store.lookup("embedding", keys, store.bound)[0] == store.bound).all()
        for state in (0, store.bound - 1):
            with pytest.raises(StateUnavailable):
                store.lookup("embedding", keys, state)
            with pytest.raises(StateUnavailable):
                store.undo(EpochRange(state, 19))
        bound, size = store.bound, _disk(tmp_path)
        store.flush(store.state)
        assert size < 40 * MIB
    with opened(tmp_path / "store", memory_bytes=4 * MIB) as store:
        assert store.bound >= bound


def test_what_had_left_memory_leaves_it_again_at_a_start(tmp_path: Path) -> None:
    rows, budget = 2_000, 4 * MIB
    keys = np.arange(rows, dtype=np.uint64)
    with opened(tmp_path / "store", memory_bytes=budget) as store:
        for epoch in range(20):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(rows))
            store.flush(store.state)
        store.pin(19)
        store.flush(store.state)
        bound = store.bound
    with opened(tmp_path / "store", memory_bytes=budget) as store:
        assert (store.pinned, store.bound) == (19, bound)
        assert store.memory_bytes() <= budget
        touched = store._tables["embedding"].pool.room.top * DIM * 4
        assert touched <= budget // 4 + 2 * rows * DIM * 4, "what is let go leaves its room to what comes next"
        assert store.apply("embedding", 20, 20, keys[:100], uniform_deltas(100)) == 100
        for state in range(bound, 21):
            assert (store.lookup("embedding", keys, state)[0] == state).all()


def test_a_pinned_state_for_which_memory_has_become_too_small_keeps_no_store_from_starting(tmp_path: Path) -> None:
    rows = 2_000
    keys = np.arange(rows, dtype=np.uint64)
    with opened(tmp_path / "store", memory_bytes=4 * MIB) as store:
        for epoch in range(3):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(rows))
        store.pin(1)
        store.flush(store.state)
    with opened(tmp_path / "store", memory_bytes=MIB) as store:
        assert store.pinned is None
        assert (store.lookup("embedding", keys)[0] == 3).all()
        assert (store.lookup("embedding", keys, 1)[0] == 1).all()


def test_a_store_whose_rows_do_not_fit_says_what_they_take(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, np.arange(20_000, dtype=np.uint64), uniform_deltas(20_000))
        store.flush(store.state)
    with (
        pytest.raises(MemoryExhausted, match=f"take {20_000 * row_bytes(DIM)} bytes") as caught,
        opened(tmp_path / "store", memory_bytes=2 * MIB),
    ):
        pass
    assert "--memory" in caught.value.hint


def test_a_store_whose_journal_entries_do_not_fit_says_so(tmp_path: Path) -> None:
    rows = 2_000
    with opened(tmp_path / "store") as store:
        for epoch in range(3):
            store.apply("embedding", epoch, epoch, np.arange(rows, dtype=np.uint64), uniform_deltas(rows))
        store.flush(store.state)
    with (
        pytest.raises(MemoryExhausted, match=str(tmp_path)) as caught,
        opened(tmp_path / "store", memory_bytes=rows * row_bytes(DIM)),
    ):
        pass
    assert "--memory" in caught.value.hint


def _disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.sst"))


def test_memory_stays_flat_while_a_thousand_keys_get_a_million_updates(tmp_path: Path) -> None:
    keys = np.arange(1_000, dtype=np.uint64)
    deltas = uniform_deltas(1_000)
    process = psutil.Process()
    with opened(tmp_path / "store") as store:

        def update(rounds: int, first: int) -> int:
            for number in range(rounds):
                epoch = first + number // 20
                store.apply("embedding", epoch, epoch, keys, deltas)
                if number % 20 == 0:
                    store.raise_bound(epoch - 3)
                    store.flush(store.state)
            gc.collect()
            return process.memory_info().rss

        before = update(200, 0)
        after = update(1_000, 10)
        assert after < before * 1.1
        assert store.lookup("embedding", keys)[0][0, 0] == 1_200


def test_a_value_that_wraps_around_is_exact_counted_and_named(tmp_path: Path) -> None:
    largest = (1 << 31) - 1
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, keys_of(5, 6), uniform_deltas(2, largest))
        assert store.overflows == {}
        store.apply("embedding", 0, 0, keys_of(5), uniform_deltas(1, 2))
        assert store.overflows == {"embedding": (1, (5,))}
        assert store.lookup("embedding", keys_of(5))[0][0, 0] == -largest
        store.flush(store.state)
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, keys_of(6), uniform_deltas(1, 1))
        store.apply("embedding", 0, 0, keys_of(5), uniform_deltas(1, -2))
        assert store.overflows == {"embedding": (2, (6, 5))}
        assert store.lookup("embedding", keys_of(5))[0][0, 0] == largest


def test_a_key_given_three_times_gets_three_deltas(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        assert store.apply("embedding", 0, 0, keys_of(7, 8, 7, 7), uniform_deltas(4)) == 2
        rows, found = store.lookup("embedding", keys_of(7, 8, 9, 7))
        assert rows[:, 0].tolist() == [3, 1, 0, 3]
        assert found.tolist() == [True, True, False, True]


def test_deltas_of_a_wrong_shape_or_table_change_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        for keys, deltas in (
            (keys_of(1), uniform_deltas(1, dim=DIM + 1)),
            (keys_of(1, 2), uniform_deltas(1)),
            (keys_of(1).astype(np.int64), uniform_deltas(1)),
            (keys_of(1), uniform_deltas(1).astype(np.float32)),
        ):
            with pytest.raises(BadInput, match="embedding"):
                store.apply("embedding", 0, 0, keys, deltas)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="no table 'other'"):
            store.apply("other", 0, 0, keys_of(1), uniform_deltas(1))
        assert store.row_count("embedding") == 0


def test_two_tables_of_other_dims_and_one_added_later(tmp_path: Path) -> None:
    model = ModelDeclaration("ctr", 2, 1, (TableDeclaration("a", 16), TableDeclaration("b", 64)), incarnation=7)

    def check(store: Store) -> None:
        for name, dim in (("a", 16), ("b", 64), ("c", 1)):
            assert store.lookup(name, keys_of(1))[0].tolist() == [[dim] * dim]

    with opened(tmp_path / "store", model) as store:
        store.add_table(TableDeclaration("c", 1))
        for name, dim in (("a", 16), ("b", 64), ("c", 1)):
            store.apply(name, 0, 0, keys_of(1), uniform_deltas(1, dim, dim))
        check(store)
        store.flush(store.state)
    with opened(tmp_path / "store", model) as store:  # opened with a catalogue that does not know the third one yet
        store.add_table(TableDeclaration("c", 1, fraction_bits=20))
        check(store)


def test_many_stores_in_one_process_share_what_they_can(tmp_path: Path) -> None:
    process = psutil.Process()
    others = process.children()  # a broker of other tests in this session
    with ExitStack() as stores:
        before = process.memory_info().rss
        for number in range(24):
            store = stores.enter_context(opened(tmp_path / str(number)))
            store.apply("embedding", 0, 0, np.arange(500, dtype=np.uint64), uniform_deltas(500))
            store.flush(store.state)
        grown = process.memory_info().rss - before
        assert grown < 24 * 6 * MIB
        assert process.children() == others  # nothing large was flushed: no helper process was needed


def test_a_table_that_comes_while_others_are_counted_disturbs_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are read by another thread than the one that adds tables."""
    with opened(tmp_path / "store") as store:
        alone = store.memory_bytes()
        counted = Table.memory_bytes

        def count_meanwhile(table: Table) -> int:
            store.add_table(TableDeclaration("bias", 1))
            return counted(table)

        monkeypatch.setattr(Table, "memory_bytes", count_meanwhile)
        assert store.memory_bytes() == alone
