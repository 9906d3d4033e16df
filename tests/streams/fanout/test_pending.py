"""Pending sums: exact against plain dictionaries, taken in fair turns, never more than the budget."""

import random
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import GapError
from ekko.schemas.quantize import Int32s
from ekko.streams.fanout.pending import PART_BYTES, Allowance, Group, Pending
from ekko.streams.fanout.pending_table import PendingTable
from ekko.streams.fanout.rows import RowUpdates, combine, sum_segments
from ekko.streams.fanout.slots import SortedSlots

NOW = Group(3, 3)


def updates(keys: list[int], deltas: list[list[int]], published_us: int = 0, *, created: bool = False) -> RowUpdates:
    count = len(keys)
    return RowUpdates(
        np.array(keys, np.uint64),
        np.array(deltas, np.int64).astype(np.int32).reshape(count, -1),
        np.full(count, created),
        np.full(count, published_us, np.int64),
    )


@pytest.mark.parametrize("seed", range(20))
def test_segments_are_summed_as_reduceat_does(seed: int) -> None:
    random_ = np.random.default_rng(seed)
    counts = random_.integers(1, random_.integers(2, 40), size=random_.integers(1, 60))
    rows = random_.integers(-(2**31), 2**31, (counts.sum(), 3), dtype=np.int32)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1])).astype(np.intp)
    assert np.array_equal(sum_segments(rows.copy(), starts), np.add.reduceat(rows, starts, axis=0, dtype=np.int32))


def test_combining_sums_duplicates_in_and_between_blocks() -> None:
    both = combine([updates([7, 3, 7], [[1], [2], [2**31 - 1]], 50), updates([3, 9], [[5], [6]], 40, created=True)])
    assert both.keys.tolist() == [3, 7, 9]
    assert both.deltas.ravel().tolist() == [7, -(2**31), 6]  # wraps around, as the group does
    assert both.created.tolist() == [True, False, True]
    assert both.published_us.tolist() == [40, 50, 40]


def test_slots_stay_with_their_keys() -> None:
    slots, random_ = SortedSlots(), np.random.default_rng(0)
    known: dict[int, int] = {}
    for _ in range(60):
        keys = np.unique(random_.integers(0, 30_000, 900).astype(np.uint64))
        numbers = slots.find_or_add(keys)
        for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
            assert known.setdefault(key, number) == number
    assert sorted(known.values()) == list(range(len(slots)))
    assert slots.find(np.array([40_000], np.uint64)).tolist() == [-1]


@pytest.mark.parametrize("seed", range(30))
def test_a_table_is_an_exact_map(seed: int) -> None:
    dice, random_ = random.Random(seed), np.random.default_rng(seed)
    table = PendingTable(2)
    plain: defaultdict[int, Int32s] = defaultdict(lambda: np.zeros(2, np.int32))
    for _ in range(120):
        keys = np.unique(random_.integers(0, 40, dice.randint(1, 25)).astype(np.uint64))
        deltas = random_.integers(-3, 4, (len(keys), 2), dtype=np.int32)
        dates = np.zeros(len(keys), np.int64)
        batch = RowUpdates(keys, deltas, np.zeros(len(keys), np.bool_), dates)
        action = dice.random()
        if action < 0.5:
            table.add(batch)
            _add(plain, keys, deltas)
        elif action < 0.7:
            joined, touched = table.take_with(batch)
            for key, row, delta, hit in zip(keys.tolist(), joined.deltas, deltas, touched, strict=True):
                assert np.array_equal(row, plain[key] + delta)
                assert hit == plain[key].any()
                plain.pop(key)
        else:
            taken = table.take(dice.randint(1, 10))
            for key, row in zip(taken.keys.tolist(), taken.deltas, strict=True):
                assert row.any()
                assert np.array_equal(row, plain.pop(key))
        assert table.rows == sum(row.any() for row in plain.values())


def _add(plain: dict[int, Int32s], keys: np.ndarray, deltas: Int32s) -> None:
    for key, delta in zip(keys.tolist(), deltas, strict=True):
        plain[key] = plain[key] + delta


def test_rows_are_taken_in_turn_so_that_hot_keys_starve_nobody() -> None:
    table = PendingTable(1)
    table.add(updates(list(range(10)), [[1]] * 10))
    seen: list[int] = []
    for _ in range(5):
        table.add(updates([0, 1], [[1], [1]]))  # hot: they wait again at once
        seen += table.take(2).keys.tolist()
    assert sorted(seen) == list(range(10)), "each key's first turn comes before any other's second"


def test_the_budget_is_kept_whatever_the_width_of_the_values() -> None:
    for value, width in ((100, 1), (1_000, 2), (100_000, 4)):
        pending = Pending()
        pending.add(NOW, "t", updates(list(range(1_000)), [[value] * 8] * 1_000))
        budget = PART_BYTES + 10 * (8 + 8 * width) + 3
        assert 1 <= sum(len(rows) for _, _, rows in pending.take(Allowance(budget))) <= 10
        parts = list(pending.take(Allowance(budget)))  # by now it knows how wide these values are
        assert [len(rows) for _, _, rows in parts] == [10]


def test_a_budget_smaller_than_a_row_lets_one_go_and_an_empty_one_none() -> None:
    pending = Pending()
    pending.add(NOW, "t", updates([1, 2], [[10**6] * 500] * 2))
    assert [len(rows) for _, _, rows in pending.take(Allowance(5.0))] == [1]
    assert list(pending.take(Allowance(0.0))) == []
    assert pending.rows == 1


def test_what_arrived_first_goes_first() -> None:
    pending = Pending()
    pending.add(Group(5, 5), "t", updates([1], [[1]], 10))
    pending.add(Group(4, 2), "t", updates([1], [[1]], 30))
    pending.add(Group(4, 4), "u", updates([1], [[1]], 20))
    assert [group for group, _, _ in pending.take(Allowance(1e9))] == [Group(4, 4), Group(4, 2), Group(5, 5)]


def test_void_epochs_are_dropped_and_settled_groups_release_their_memory() -> None:
    pending = Pending()
    for arrival in (1, 2, 3):
        pending.add(Group(arrival, arrival), "t", updates([1], [[1]]))
    pending.drop((EpochRange(2, 2),))
    assert (pending.rows, pending.oldest_arrival) == (2, 1)
    assert len(list(pending.take(Allowance(1e9)))) == 2
    before = pending.nbytes
    pending.drop_empty(current=3)
    assert pending.nbytes < before
    assert pending.oldest_arrival is None


def test_subtracting_what_never_arrived_is_an_error() -> None:
    pending = Pending()
    pending.add(NOW, "t", updates([1], [[5]]))
    pending.subtract(NOW, "t", np.array([1], np.uint64), np.array([[5]], np.int32))
    assert pending.rows == 0
    with pytest.raises(GapError):
        pending.subtract(NOW, "t", np.array([2], np.uint64), np.array([[5]], np.int32))
    with pytest.raises(GapError):
        pending.subtract(Group(9, 9), "t", np.array([1], np.uint64), np.array([[5]], np.int32))


def test_what_has_changed_most_goes_first_and_a_part_goes_in_turn() -> None:
    pending = Pending()
    pending.add(NOW, "small", updates(list(range(100)), [[key] for key in range(1, 101)]))
    pending.add(NOW, "large", updates([500], [[50, 50, 50]]))
    room = 3 * (8 + 2) + 2 * PART_BYTES
    sent = {key: name for _, name, rows in pending.take(Allowance(room)) for key in rows.keys.tolist()}
    assert sent[99] == "small"
    assert sent[500] == "large"
    assert 0 not in sent
    in_turn = PART_BYTES + 2 * (8 + 1)
    sent = {
        key: name for _, name, rows in pending.take(Allowance(in_turn + 300, in_turn)) for key in rows.keys.tolist()
    }
    assert {0, 1} <= sent.keys(), "the oldest in turn"
    assert 97 in sent, "and the largest"


def test_of_the_rows_that_are_due_the_most_changed_go_first_however_small_their_changes_are() -> None:
    pending, step = Pending(), 2.0**-24
    due = replace(updates(list(range(200)), [[key + 1] for key in range(200)], 100), step=step)
    later = replace(updates(list(range(1_000, 1_100)), [[30_000]] * 100, 900), step=step)
    pending.add(NOW, "t", due)
    pending.add(NOW, "t", later)
    room = PART_BYTES + 5 * (8 + 2)
    ((_, _, rows),) = pending.take(Allowance(room, 0.0, due_us=500))
    assert rows.keys.tolist() == [195, 196, 197, 198, 199]


@pytest.mark.parametrize("seed", range(20))
def test_every_way_of_taking_is_exact(seed: int) -> None:
    dice, random_ = random.Random(seed), np.random.default_rng(seed)
    pending = Pending()
    plain: defaultdict[tuple[Group, str, int], Int32s] = defaultdict(lambda: np.zeros(2, np.int32))
    for _ in range(60):
        group, name = Group(dice.randint(1, 3), 1), dice.choice(("t", "u"))
        keys = np.unique(random_.integers(0, 60, dice.randint(1, 25)).astype(np.uint64))
        deltas = random_.integers(-30_000, 30_000, (len(keys), 2), dtype=np.int32)
        pending.add(group, name, updates(keys.tolist(), deltas.tolist()))
        for key, delta in zip(keys.tolist(), deltas, strict=True):
            plain[group, name, key] = plain[group, name, key] + delta
        allowance = Allowance(dice.choice((0.0, 300.0, 900.0)), dice.choice((0.0, 280.0)))
        for at, table, rows in pending.take(allowance):
            for key, row in zip(rows.keys.tolist(), rows.deltas, strict=True):
                assert np.array_equal(row, plain.pop((at, table, key)))
        assert pending.rows == sum(row.any() for row in plain.values())
