"""What the next barrier says."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StateUnavailable
from ekko.streams.manager.barriers import (
    allowing,
    beginning,
    denying,
    following,
    rolling_back,
    united,
    withdrawing,
)


def test_control_state_is_carried_on_in_full() -> None:
    denied = following(beginning(7), 5, 100, denying("bad"))
    rolled_back = following(denied, 6, 200, rolling_back(1))
    last = following(rolled_back, 9, 300)
    assert (last.incarnation, last.epoch, last.generation) == (7, 3, 1)
    assert last.voids == (EpochRange(1, 1),)
    assert last.denied == ("bad",)
    assert (last.catalogue_end, last.written_us) == (9, 300)


def test_a_rollback_voids_up_to_the_epoch_its_barrier_closes() -> None:
    last = beginning(0)
    for _ in range(5):
        last = following(last, 0, 0)
    assert following(last, 0, 0, rolling_back(3)).voids == (EpochRange(3, 5),)
    with pytest.raises(StateUnavailable, match="state 6 does not exist: the last one is 5"):
        following(last, 0, 0, rolling_back(6))


def test_a_rollback_may_go_back_behind_an_earlier_one() -> None:
    first = following(following(following(beginning(0), 0, 0), 0, 0), 0, 0, rolling_back(2))
    assert following(first, 0, 0, rolling_back(1)).voids == (EpochRange(2, 2), EpochRange(1, 3))


def test_a_withdrawn_state_is_no_target() -> None:
    last = following(following(beginning(0), 0, 0), 0, 0, withdrawing([1]))
    with pytest.raises(StateUnavailable, match="withdrawn"):
        following(last, 0, 0, rolling_back(1))
    assert following(last, 0, 0, rolling_back(2)).generation == 1


def test_trainers_are_denied_and_allowed_again() -> None:
    last = following(following(beginning(0), 0, 0, denying("b")), 0, 0, denying("a"))
    assert last.denied == ("a", "b")
    assert following(last, 0, 0, denying("a")).denied == ("a", "b")
    assert following(last, 0, 0, allowing("b")).denied == ("a",)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5))), st.sets(st.integers(0, 40)))
def test_united_runs_hold_the_same_states_and_are_as_few_as_can_be(
    pairs: list[tuple[int, int]], more: set[int]
) -> None:
    runs = [EpochRange(first, first + length) for first, length in pairs]
    result = united(runs, more)
    expected = {state for run in runs for state in range(run.first, run.last + 1)} | more
    assert {state for run in result for state in range(run.first, run.last + 1)} == expected
    assert all(one.last + 1 < other.first for one, other in pairwise(result))


def test_a_pin_moves_to_a_state_that_was_not_itself_taken_back() -> None:
    pinned = replace(beginning(0), epoch=7, voids=(EpochRange(3, 4),), pinned=6)
    assert following(pinned, 0, 0, rolling_back(4)).pinned == 3
    assert following(pinned, 0, 0, rolling_back(5)).pinned == 5
    assert following(pinned, 0, 0, rolling_back(7)).pinned == 6
