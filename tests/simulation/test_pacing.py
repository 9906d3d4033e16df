"""Starvation, promotion, budget and memory bounds hold over seeds; each planted bug is caught by one of the first."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ekko.schemas.errors import EkkoError
from tests.simulation.pacing import PacingWorld, pressure_of
from tests.simulation.pacing_mutations import MUTATIONS, nothing_goes_by_age

SEEDS = 16
LONG_S = 20.0
SEEDS_A_MUTATION = 32


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_bounds_hold(seed: int) -> None:
    PacingWorld(seed).run()


def test_the_seeds_differ_in_all_that_matters() -> None:
    seen = [pressure_of(seed) for seed in range(SEEDS)]
    assert {pressure.instances for pressure in seen} == {1, 2}
    assert len({pressure.bound for pressure in seen}) == 2
    assert any(pressure.kills and pressure.instances == 2 for pressure in seen)


def test_a_small_change_gets_through_however_long_larger_ones_come() -> None:
    """Larger ones come for twice as long as it may wait, so that whoever lets it wait for their end is found out."""
    PacingWorld(0, LONG_S).run()
    with nothing_goes_by_age(), pytest.raises(AssertionError, match=r"small change waited \d\d\.\d s"):
        PacingWorld(0, LONG_S).run()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_bug_is_caught(mutation: Callable[[], Any]) -> None:
    seeds = MUTATIONS[mutation], *range(SEEDS_A_MUTATION)
    with mutation():
        assert any(_is_caught(seed) for seed in seeds), f"no seed below {SEEDS_A_MUTATION} minds it"


def _is_caught(seed: int) -> bool:
    try:
        PacingWorld(seed).run()
    except (AssertionError, LookupError, EkkoError):
        return True
    return False
