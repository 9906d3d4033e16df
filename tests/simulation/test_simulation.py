"""A hundred seeds hold, and every planted bug is caught by one of the first."""

import itertools
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.__main__ import failures, replay_command
from tests.simulation.mutations import MUTATIONS
from tests.simulation.world import simulate

SEEDS = 100
SEEDS_A_MUTATION = 60


@pytest.mark.timeout(1200)
def test_all_laws_hold() -> None:
    found = list(itertools.islice(failures(range(SEEDS), min(os.cpu_count() or 1, 4)), 3))
    assert not found, "\n".join(f"{failure}\nreplay: {replay_command(seed)}" for seed, failure in found)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_bug_is_caught(mutation: Callable[[], Any]) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with mutation():
            caught = any(_is_caught(seed) for seed in range(SEEDS_A_MUTATION))
    finally:
        logging.disable(logging.NOTSET)
    assert caught, f"no seed below {SEEDS_A_MUTATION} minds it"


def _is_caught(seed: int) -> bool:
    try:
        simulate(seed)
    except (AssertionError, LookupError):  # a process may also stumble over it by itself
        return True
    return False
