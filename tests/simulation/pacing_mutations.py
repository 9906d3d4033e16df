"""Bugs of pacing to be planted, one at a time, each of which `pacing` must catch."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np

from ekko.streams.fanout import classes
from ekko.streams.fanout.budget import Budget
from ekko.streams.fanout.classes import EpochClasses
from ekko.streams.fanout.memory import MemoryBound
from ekko.streams.fanout.pending import Allowance, Group, Pending
from ekko.streams.fanout.recomputation import Recomputation
from ekko.streams.fanout.rows import RowUpdates
from ekko.streams.fanout.shard import Batch, ShardFanout
from ekko.streams.fanout.sorting import Sorter


def nothing_goes_by_age() -> Any:
    """Only the size of a change counts: small ones never go while larger ones come."""
    return patch.object(Pending, "_take_in_turn", lambda *_: iter(()))


def transactions_have_no_bound() -> Any:
    """Bulk goes as if bandwidth were unlimited."""
    return patch.object(Budget, "for_bulk", lambda *_, **__: Allowance(1e9))


def nothing_is_paid() -> Any:
    """What was sent is not taken from the budget."""
    return patch.object(Budget, "spend", lambda *_: None)


def nothing_is_lifted() -> Any:
    """Rows stay bulk whatever they gather."""
    return patch.object(Sorter, "lifted", lambda *given: np.zeros(len(given[3]), np.bool_))


def memory_has_no_bound() -> Any:
    """Bulk is never forgotten."""
    return patch.object(MemoryBound, "has_room", lambda *_: True)


def what_was_forgotten_stays_forgotten() -> Any:
    """What is computed again never gets to what waits."""
    return patch.object(Pending, "adopt", lambda *_: None)


def recomputation_forgets_what_was_sent() -> Any:
    """What is computed again is all that arrived, sent or not."""
    return patch.object(Recomputation, "_subtract", lambda *_: None)


def takeover_forgets_what_was_sent() -> Any:
    """A fan-out that takes over sends everything unsettled again."""
    return patch.object(ShardFanout, "subtract_sent", lambda *_: None)


def a_range_is_added_to_what_the_last_one_left() -> Any:
    """What is computed again is added while the other half of the memory is not free."""

    def recomputable(self: ShardFanout) -> int | None:
        current = self.intake.epoch.epoch
        arrival = self._recomputing[0] if self._recomputing else min(self.forgotten, default=current)
        busy = self.pending.waits(arrival) or self.intake.holds(arrival, self._end_of(arrival))
        return None if busy or arrival == current else arrival

    return patch.object(ShardFanout, "recomputable", recomputable)


def deltas_belong_to_the_epoch_they_came_in() -> Any:
    """A retraction is not given the epoch that it takes back."""
    original = Pending.add

    def add(self: Pending, group: Group, table: str, updates: RowUpdates) -> None:
        original(self, Group(group.arrival, group.arrival), table, updates)

    return patch.object(Pending, "add", add)


def what_is_withdrawn_stays_apart() -> Any:
    """Each epoch's rows wait by themselves for ever."""
    return patch.object(EpochClasses, "arrival", lambda self, epoch: max(epoch, self.settled))


def united_before_the_barrier_is_sent() -> Any:
    """A barrier that has just been read counts at once: united rows leave before its marker."""
    original = ShardFanout.plan

    def plan(self: ShardFanout, *given: Any) -> Batch | None:
        self.intake.withdrawn = self.intake._withdrawn_next
        self._unite()
        return original(self, *given)

    return patch.object(ShardFanout, "plan", plan)


def united_across_kept_states() -> Any:
    """Deltas are said to belong to the oldest epoch whose rows wait, whatever stands between."""
    original = EpochClasses.group
    return patch.object(
        EpochClasses,
        "group",
        lambda self, group: Group(original(self, group).arrival, min(group.effective, self.settled)),
    )


def united_under_a_void_name() -> Any:
    """What is united gets the name of its first epoch, though that is void: stores drop it."""
    return patch.object(classes, "is_void", lambda *_: False)


def takeover_unites_nothing() -> Any:
    """A fan-out that takes over keeps apart what its forerunner has united and sent."""
    original = ShardFanout.absorb

    def absorb(self: ShardFanout) -> None:
        with patch.object(EpochClasses, "group", lambda _, group: group):
            original(self)
        self._classes = EpochClasses(settled=self.settled.epoch)

    return patch.object(ShardFanout, "absorb", absorb)


def recomputation_reads_the_first_epoch_only() -> Any:
    """Of epochs that are one only the first is computed again."""
    original = ShardFanout.begin_recomputation
    return patch.object(
        ShardFanout, "begin_recomputation", lambda self, arrival: min(original(self, arrival), arrival + 1)
    )


MUTATIONS: dict[Callable[[], Any], int] = {
    transactions_have_no_bound: 0,
    nothing_is_paid: 0,
    nothing_is_lifted: 0,
    memory_has_no_bound: 3,
    what_was_forgotten_stays_forgotten: 3,
    recomputation_forgets_what_was_sent: 3,
    takeover_forgets_what_was_sent: 2,
    a_range_is_added_to_what_the_last_one_left: 4,
    deltas_belong_to_the_epoch_they_came_in: 0,
    what_is_withdrawn_stays_apart: 5,
    united_before_the_barrier_is_sent: 3,
    united_across_kept_states: 0,
    united_under_a_void_name: 30,
    takeover_unites_nothing: 5,
    recomputation_reads_the_first_epoch_only: 3,
}
"""Each with the seed that is tried first, for it has minded the bug before: to go through others takes minutes."""
