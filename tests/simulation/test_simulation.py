"""A hundred seeds hold, and every planted bug is caught by one of the first.

The first of the hundred are lived through by `test_reach`, which checks all laws in them, too.
"""

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenario import scenario_of
from tests.simulation.test_reach import SEEDS as REACHED
from tests.simulation.world import simulate

SEEDS = 100


@pytest.mark.timeout(1200)
def test_all_laws_hold() -> None:
    """The command itself, since its hash seed is fixed and no client of another test lives in its forks."""
    which = ["--first", str(REACHED), "--seeds", str(SEEDS - REACHED)]
    command = [sys.executable, "-m", "tests.simulation", *which]
    run = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{SEEDS - REACHED} seeds in" in run.stdout
    assert "all laws held" in run.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_bug_is_caught(mutation: Callable[[], Any]) -> None:
    seeds = [seed for seed in range(SEEDS) if MUTATIONS[mutation](scenario_of(seed))]
    logging.disable(logging.CRITICAL)
    try:
        with mutation():
            caught = any(_is_caught(seed) for seed in seeds)
    finally:
        logging.disable(logging.NOTSET)
    assert caught, f"no seed below {SEEDS} minds it"


def _is_caught(seed: int) -> bool:
    try:
        simulate(seed)
    except (AssertionError, LookupError):  # a process may also stumble over it by itself
        return True
    return False
