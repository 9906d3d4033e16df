"""Bugs of pacing to be planted, one at a time, each of which `pacing` must catch."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np

from ekko.streams.fanout.budget import Budget
from ekko.streams.fanout.memory import MemoryBound
from ekko.streams.fanout.pending import Allowance, Group, Pending
from ekko.streams.fanout.recomputation import Recomputation
from ekko.streams.fanout.rows import RowUpdates
from ekko.streams.fanout.shard import ShardFanout
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
        arrival = min(self.forgotten, default=self.intake.epoch.epoch)
        busy = self.pending.waits(arrival) or self.intake.holds(arrival)
        return None if busy or arrival == self.intake.epoch.epoch else arrival

    return patch.object(ShardFanout, "recomputable", recomputable)


def deltas_belong_to_the_epoch_they_came_in() -> Any:
    """A retraction is not given the epoch that it takes back."""
    original = Pending.add

    def add(self: Pending, group: Group, table: str, updates: RowUpdates) -> None:
        original(self, Group(group.arrival, group.arrival), table, updates)

    return patch.object(Pending, "add", add)


MUTATIONS: tuple[Callable[[], Any], ...] = (
    nothing_goes_by_age,
    transactions_have_no_bound,
    nothing_is_paid,
    nothing_is_lifted,
    memory_has_no_bound,
    what_was_forgotten_stays_forgotten,
    recomputation_forgets_what_was_sent,
    takeover_forgets_what_was_sent,
    a_range_is_added_to_what_the_last_one_left,
    deltas_belong_to_the_epoch_they_came_in,
)
