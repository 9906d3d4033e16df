"""Sums united over withdrawn states: exact against plain integers, whatever is withdrawn, void or sent."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ekko.schemas.epochs import EpochRange, is_void, label_of
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.streams.fanout.classes import EpochClasses
from ekko.streams.fanout.pending import Allowance, Group, Pending
from ekko.streams.fanout.pending_table import PendingTable
from ekko.streams.fanout.rows import RowUpdates

MODULUS = 1 << 32
KEYS = 6


def updates(values: dict[int, int], published_us: int = 0) -> RowUpdates:
    keys = np.array(sorted(values), np.uint64)
    deltas = np.array([[values[key]] for key in sorted(values)], np.int64).astype(np.int32)
    return RowUpdates(keys, deltas, np.zeros(len(keys), np.bool_), np.full(len(keys), published_us, np.int64))


@dataclass
class Plain:
    """The same in plain integers, and with every epoch by itself: what arrived, and what was sent under which name."""

    arrived: list[tuple[Group, dict[int, int]]] = field(default_factory=list)
    sent: list[tuple[Group, dict[int, int]]] = field(default_factory=list)

    @staticmethod
    def sums(parts: Iterable[tuple[Group, dict[int, int]]], voids: tuple[EpochRange, ...]) -> dict[int, int]:
        total: Counter[int] = Counter()
        for group, values in parts:
            if not is_void(group.effective, voids):
                total.update(values)
        return {key: value % MODULUS for key, value in total.items() if value % MODULUS}


class Waiting:
    """What a shard does with `Pending` and `EpochClasses`, without lanes and logs."""

    def __init__(self) -> None:
        self.pending, self.classes, self.plain = Pending(), EpochClasses(), Plain()
        self.epoch = self.settled = 0
        self.withdrawn: set[int] = set()
        self.voids: tuple[EpochRange, ...] = ()

    def add(self, values: dict[int, int], before: int) -> None:
        """Deltas of the current epoch, or of one that is `before` so many epochs."""
        group = Group(self.epoch, max(0, self.epoch - before))
        if not is_void(group.effective, self.voids):
            self.plain.arrived.append((group, values))
            self.pending.add(self.classes.group(group), "t", updates(values, self.epoch))

    def barrier(self, withdrawn: set[int]) -> None:
        self.withdrawn |= {state for state in withdrawn if state <= self.epoch}
        self.epoch += 1
        self.unite()

    def roll_back(self, back: int) -> None:
        kept = [state for state in range(self.epoch + 1) if state not in self.withdrawn]
        if kept:
            self.voids += (EpochRange(kept[max(0, len(kept) - back)], self.epoch),)
            self.pending.drop(self.voids)
        self.epoch += 1

    def unite(self) -> None:
        self.pending.compact()
        runs = tuple(EpochRange(state, state) for state in sorted(self.withdrawn))
        self.classes = EpochClasses(runs, self.voids, self.settled)
        self.pending.unite(self.classes.group)

    def send(self, room: float) -> None:
        for group, _, rows in self.pending.take(Allowance(room, room / 2)):
            newest = self.classes.newest(group.arrival, range(self.settled, self.epoch + 1))
            mine = [at.arrival for at, values in self.plain.arrived if self.classes.group(at) == group]
            assert max(mine) <= newest, "something in it arrived later than it says"
            assert self.classes.arrival(newest) == group.arrival
            self.plain.sent.append((group, dict(zip(rows.keys.tolist(), rows.deltas[:, 0].tolist(), strict=True))))

    def settle(self) -> None:
        oldest = self.pending.oldest_arrival
        self.settled = max(self.settled, self.classes.arrival(self.epoch if oldest is None else oldest))

    def waiting(self, pending: Pending) -> list[tuple[Group, dict[int, int]]]:
        found = []
        for (group, _), table in sorted(pending.tables().items()):
            slots = table.waiting()
            keys, sums = table._keys[slots].tolist(), table._sums[slots, 0].tolist()
            found.append((group, dict(zip(keys, sums, strict=True))))
        return [(group, values) for group, values in found if values]

    def rebuilt(self) -> Pending:
        """By subtraction, as a takeover does: what it read before the barrier that withdraws is united afterwards."""
        pending = Pending()
        for group, values in self.plain.arrived:
            if group.arrival >= self.settled and not is_void(group.effective, self.voids):
                pending.add(group, "t", updates(values))
        pending.unite(self.classes.group)
        for group, values in self.plain.sent:
            if group.arrival >= self.settled and not is_void(group.effective, self.voids):
                rows = updates(values)
                pending.subtract(self.classes.group(group), "t", rows.keys, rows.deltas)
        return pending

    def check(self) -> None:
        plain, everything = self.plain, self.plain.sent + self.waiting(self.pending)
        for state in range(self.epoch + 2):
            if state not in self.withdrawn:
                mine = Plain.sums(((at, rows) for at, rows in everything if at.effective < state), self.voids)
                exact = Plain.sums(((at, rows) for at, rows in plain.arrived if at.effective < state), self.voids)
                assert mine == exact, f"as of state {state}"
        sent = Plain.sums(((at, rows) for at, rows in plain.sent if at.arrival < self.settled), self.voids)
        settled = Plain.sums(((at, rows) for at, rows in plain.arrived if at.arrival < self.settled), self.voids)
        assert sent == settled, f"settled {self.settled} is said too early"
        assert all(group == self.classes.group(group) for group, _ in self.waiting(self.pending)), "names are kept"
        kept = [state for state in range(self.settled + 1, self.epoch + 1) if state not in self.withdrawn]
        assert len({group.arrival for group, _ in self.waiting(self.pending)}) <= len(kept) + 1


VALUES = st.dictionaries(
    st.integers(0, KEYS - 1), st.one_of(st.integers(-3, 3), st.integers(-(2**31), 2**31 - 1)), min_size=1
)
STEPS = st.one_of(
    st.tuples(st.just("add"), VALUES, st.sampled_from((0, 0, 0, 1, 2, 5))),
    st.tuples(st.just("barrier"), st.sets(st.integers(0, 12), max_size=5)),
    st.tuples(st.just("roll_back"), st.integers(1, 3)),
    st.tuples(st.just("send"), st.sampled_from((0.0, 265.0, 300.0, 900.0, 1e9))),
    st.tuples(st.just("settle")),
)


@settings(max_examples=200, deadline=None)
@example(  # the settled state itself is withdrawn while rows of its epoch wait
    [("barrier", set()), ("settle",), ("add", {0: 1}, 0), ("barrier", {1}), ("send", 1e9), ("add", {0: 1}, 0)]
)
@example(  # a key comes and goes within one epoch: nothing is left of what arrived, and two rows were sent
    [
        ("barrier", set()),
        ("add", {1: 1}, 0),
        ("barrier", set()),
        ("add", {0: 1}, 0),
        ("send", 1e9),
        ("add", {0: -1}, 0),
        ("send", 1e9),
        ("barrier", {2}),
    ]
)
@given(st.lists(STEPS, max_size=40))
def test_whatever_is_withdrawn_all_kept_states_stay_exact_and_a_takeover_finds_the_same(
    steps: list[tuple[Any, ...]],
) -> None:
    waiting = Waiting()
    for name, *arguments in steps:
        getattr(waiting, name)(*arguments)
        waiting.check()
        assert waiting.waiting(waiting.rebuilt()) == waiting.waiting(waiting.pending)


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)), st.integers(0, 20), st.integers(0, 8))
def test_what_was_named_under_fewer_withdrawn_states_gets_the_same_name_later(
    few: set[int], more: set[int], effective: int, settled: int
) -> None:
    group = Group(max(settled, 15), effective)
    earlier, later = (
        EpochClasses(tuple(EpochRange(state, state) for state in sorted(states)), (), settled)
        for states in (few, few | more)
    )
    assert later.group(earlier.group(group)) == later.group(group)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4)), max_size=6), st.integers(0, 25))
def test_the_label_is_the_first_epoch_back_to_which_only_withdrawn_states_lead(
    runs: list[tuple[int, int]], epoch: int
) -> None:
    withdrawn = tuple(EpochRange(first, first + more) for first, more in runs)
    label = label_of(epoch, withdrawn)
    assert 0 <= label <= epoch
    assert all(any(state in run for run in withdrawn) for state in range(label + 1, epoch + 1))
    assert label == 0 or not any(label in run for run in withdrawn)


@pytest.mark.parametrize(("older", "newer"), [(1, 3), (100, 5), (5, 100), (300, 300), (64, 65)])
def test_united_tables_take_no_more_memory_than_both_did(older: int, newer: int) -> None:
    one, other = PendingTable(1), PendingTable(1)
    one.add(updates(dict.fromkeys(range(older), 2), 7))
    other.add(updates(dict.fromkeys(range(older // 2, older // 2 + newer), -2), 9))
    before, both = one.nbytes + other.nbytes, min(older - older // 2, newer)
    one.take_over(other)
    assert one.nbytes <= before
    assert one.rows == older + newer - 2 * both, "what cancels out waits no longer"
    assert one.oldest_us in {7, 9}


def test_a_key_whose_sum_is_zero_stays_known_for_what_was_sent_of_it() -> None:
    one, other = PendingTable(1), PendingTable(1)
    one.add(updates({1: 1}))
    for value in (5, -5):
        other.add(updates({2: value}))
    one.take_over(other)
    assert one.rows == 1
    assert one.subtract(*_columns({2: 5}))
    assert one.subtract(*_columns({2: -5}))
    assert one.rows == 1
    assert not one.subtract(*_columns({3: 1})), "it never arrived"


def _columns(values: dict[int, int]) -> tuple[UInt64s, Int32s]:
    rows = updates(values)
    return rows.keys, rows.deltas


def test_compaction_keeps_turns_and_sums_and_takes_the_memory_of_what_waits() -> None:
    table, fresh = PendingTable(1), PendingTable(1)
    table.add(updates({key: key + 1 for key in range(3_000)}, 7))
    table.take(2_980)  # the next ones are 2,980 and so on, and then those that came again
    table.add(updates({3: 40, 1: 20}, 5))
    fresh.add(updates(dict.fromkeys(range(22), 1)))
    table.compact()
    assert table.nbytes <= fresh.nbytes
    assert (table.rows, table.oldest_us) == (22, 5)
    assert [table.take(1).keys.tolist() for _ in range(2)] == [[2_980], [2_981]]
    table.add(updates({2: 1}))
    rest = table.take(30)
    assert rest.keys.tolist() == [1, 2, 3, *range(2_982, 3_000)]
    assert rest.deltas[:, 0].tolist() == [20, 1, 40, *range(2_983, 3_001)]
    table.compact()
    assert (table.rows, table.nbytes) == (0, 0)


def test_nothing_is_moved_while_most_rows_wait() -> None:
    table = PendingTable(1)
    table.add(updates(dict.fromkeys(range(100), 1)))
    table.take(50)
    before = table.nbytes
    table.compact()
    assert table.nbytes == before
    table.take(1)
    table.compact()
    assert table.nbytes < before


def test_what_waits_longest_keeps_its_turn_when_more_joins_it() -> None:
    one, other = PendingTable(1), PendingTable(1)
    one.add(updates(dict.fromkeys(range(10), 1)))
    assert one.take(4).keys.tolist() == [0, 1, 2, 3]
    other.add(updates(dict.fromkeys((0, 20), 1)))
    one.take_over(other)
    assert [one.take(3).keys.tolist() for _ in range(3)] == [[4, 5, 6], [7, 8, 9], [0, 20]]


def test_a_name_is_never_one_that_a_void_drops() -> None:
    classes = EpochClasses((EpochRange(4, 9),), (EpochRange(3, 5),), settled=1)
    assert classes.group(Group(8, 7)) == Group(3, 6), "3 to 5 are void: what is united is called 6"
    assert classes.group(Group(8, 2)) == Group(3, 2), "a retraction of an earlier epoch keeps it"


def test_the_newest_of_a_class_is_the_last_epoch_before_a_kept_state() -> None:
    classes = EpochClasses((EpochRange(4, 5), EpochRange(8, 8)), settled=2)
    assert [classes.newest(arrival, range(2, 10)) for arrival in (2, 3, 6, 7, 9)] == [2, 5, 6, 8, 9]
