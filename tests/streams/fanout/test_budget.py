"""The token bucket: rate kept, express first, and bulk never starved."""

import math

import pytest

from ekko.streams.fanout.budget import (
    EXPRESS_PART,
    HEAD_BYTES,
    HEADS_SHARE,
    HORIZON_S,
    LONGEST_GATHER_S,
    MOST_EXCESS,
    Budget,
)
from ekko.streams.fanout.pending import Allowance


def test_without_a_budget_everything_goes() -> None:
    budget = Budget(None)
    budget.spend(10**12, 10**12, 0, 1.0)
    assert budget.for_bulk(1.0, overdue=False) == Allowance(math.inf)


def test_at_most_a_tenth_of_a_second_of_budget_at_a_time() -> None:
    budget = Budget(1_000_000.0)
    assert budget.for_bulk(100.0, overdue=True).total == 1_000_000.0 * HORIZON_S


def test_over_time_bulk_gets_what_express_leaves() -> None:
    budget, sent = Budget(10_000.0), 0.0
    for tick in range(1, 1001):
        now_s = tick * 0.01
        budget.spend(60, 0, 0, now_s)  # express: 6,000 bytes a second
        allowed = budget.for_bulk(now_s, overdue=False).total
        budget.spend(0, allowed, 0, now_s)
        sent += allowed
    assert sent == pytest.approx(4_000 * 10, rel=0.05)


def test_overdue_bulk_gets_its_share_of_a_link_full_of_express() -> None:
    budget, overdue = Budget(10_000.0, bulk_share=0.1), 0.0
    for tick in range(1, 1001):
        now_s = tick * 0.01
        budget.spend(150, 0, 0, now_s)  # express: half as much again as the budget
        allowed = budget.for_bulk(now_s, overdue=True)
        budget.spend(0, allowed.total, allowed.in_turn, now_s)
        overdue += allowed.total
    assert overdue == pytest.approx(0.1 * 10_000 * 10, rel=0.1)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = Budget(1_000.0)
    budget.spend(0, 1_000, 0, 10.0)
    assert budget.for_bulk(5.0, overdue=False) == Allowance(0.0)


def test_in_debt_transactions_gather_so_that_their_heads_are_a_part_of_the_rate_only() -> None:
    budget = Budget(20_000.0)
    assert budget.gather_s(6) == 0.0, "express leaves at once"
    budget.spend(5_000, 0, 0, 0.0)
    assert budget.gather_s(6) == 6 * HEAD_BYTES / (HEADS_SHARE * 20_000.0)
    assert budget.gather_s(600) == LONGEST_GATHER_S
    assert Budget(None).gather_s(600) == 0.0
    budget.for_bulk(1.0, overdue=False)
    assert budget.gather_s(6) == 0.0, "the debt is paid"


@pytest.mark.parametrize("demand", [0.3, 2.0, 8.0, 20.0])
def test_express_follows_the_link(demand: float) -> None:
    """`demand`: what express would take, in parts of the rate, if as much as the percentile says were express."""
    rate, taken = 10_000.0, 0.0
    budget = Budget(rate)
    assert budget.excess(0.0) == MOST_EXCESS
    for tick in range(1, 3_001):
        now_s = tick * 0.01
        express = budget.excess(now_s) * demand * rate * 0.01
        budget.spend(express, 0, 0, now_s)
        taken += express if tick > 2_000 else 0.0
    assert taken == pytest.approx(EXPRESS_PART * rate * 10, rel=0.1)


def test_express_that_needs_little_is_bounded_by_the_percentile_only() -> None:
    budget = Budget(10_000.0)
    for tick in range(1, 1_001):
        budget.spend(5, 0, 0, tick * 0.01)
    assert budget.excess(10.0) == MOST_EXCESS
    assert Budget(None).excess(1.0) == math.inf
