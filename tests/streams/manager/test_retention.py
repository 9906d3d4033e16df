"""Thinning: what is kept, and that it stays kept."""

from dataclasses import replace

import pytest

from ekko.schemas.epochs import Barrier, ModelState, Verdict
from ekko.streams.manager.barriers import following, withdrawing
from ekko.streams.manager.retention import CALENDAR_DAYS, Tier, to_forget, to_withdraw
from ekko.streams.manager.verdicts import after_barrier

TIERS = (Tier(100, 0), Tier(1_000, 50), Tier(5_000, 500))


def at(second: float) -> int:
    return int(second * 1e6)


def history(seconds: int, verdict: Verdict = Verdict.HEALTHY) -> tuple[dict[int, ModelState], Barrier]:
    """A state every 10 s, thinned at every barrier."""
    states: dict[int, ModelState] = {}
    barrier = Barrier(0, 0, 0, 0)
    for second in range(10, seconds + 1, 10):
        chosen = to_withdraw(states.values(), barrier, at(second), TIERS)
        barrier = following(barrier, 0, at(second), withdrawing(chosen))
        states[barrier.epoch] = ModelState("ctr", 0, barrier.epoch, 0, (0,), verdict, written_us=at(second))
        states |= {state.epoch: state for state in after_barrier(barrier, states.values(), at(second))}
    return states, barrier


def kept(states: dict[int, ModelState]) -> list[int]:
    return [epoch for epoch, state in states.items() if state.verdict is not Verdict.WITHDRAWN]


def test_every_state_for_a_while_then_fewer_then_none() -> None:
    states, barrier = history(10_000)
    ages = [10_000 - states[epoch].written_us / 1e6 for epoch in kept(states)]
    assert [age for age in ages if age < 100] == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    middle = [age for age in ages if 110 < age < 1_000]
    assert len(middle) == pytest.approx(18, abs=2)
    old = [age for age in ages if 1_010 < age < 5_000]
    assert len(old) == pytest.approx(8, abs=1)
    assert max(ages) <= 5_010
    assert 0 in barrier.withdrawn[0]
    assert len(barrier.withdrawn) < 40, "the barrier stays small"


def test_pinned_and_last_healthy_states_stay() -> None:
    states, barrier = history(300)
    states = {epoch: replace(state, verdict=Verdict.SUSPECT) for epoch, state in states.items()}
    open_states = {
        epoch: state for epoch, state in states.items() if not any(epoch in run for run in barrier.withdrawn)
    }
    first, second = list(open_states)[:2]
    open_states[first] = replace(open_states[first], verdict=Verdict.HEALTHY)
    open_states[second] = replace(open_states[second], pinned=True)
    given_up = to_withdraw(open_states.values(), barrier, at(100_000), TIERS)
    assert given_up == set(open_states) - {first, second}


def test_the_healthiest_of_a_slot_stays_and_corrupt_ones_go() -> None:
    states = [
        ModelState("ctr", 0, epoch, 0, (0,), verdict, written_us=at(1_000 + epoch))
        for epoch, verdict in enumerate([Verdict.CANDIDATE, Verdict.HEALTHY, Verdict.CORRUPT, Verdict.HEALTHY], start=1)
    ]
    newest = ModelState("ctr", 0, 9, 0, (0,), Verdict.HEALTHY, written_us=at(1_500))
    assert to_withdraw([*states, newest], Barrier(0, 9, 0, 0), at(1_500), TIERS) == {1, 3, 4}
    only_corrupt = [states[2], newest]
    assert to_withdraw(only_corrupt, Barrier(0, 9, 0, 0), at(1_500), TIERS) == {3}


def test_records_of_withdrawn_states_go_after_the_last_tier() -> None:
    states, _ = history(10_000)
    forgotten = to_forget(states.values(), at(10_000), TIERS)
    assert forgotten
    assert max(states[epoch].written_us for epoch in forgotten) <= at(5_000)
    assert not forgotten & set(kept(states))


def test_one_withdrawn_state_a_day_stays_as_a_calendar() -> None:
    day = 86_400
    states = [
        ModelState("ctr", 0, number, 0, (0,), Verdict.WITHDRAWN, written_us=at(number * day / 4))
        for number in range(4 * (CALENDAR_DAYS + 20))
    ]
    now = at((CALENDAR_DAYS + 20) * day)
    left = {state.epoch for state in states} - to_forget(states, now, TIERS)
    of_the_first_day = 4 * 20 + 1  # what came before on that day is too old
    assert left == {of_the_first_day, *range(4 * 20 + 4, 4 * (CALENDAR_DAYS + 20), 4)}
    assert not to_forget([state for state in states if state.epoch in left], now, TIERS), "it stays kept"
