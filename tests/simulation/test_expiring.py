"""Worlds in which rows expire: the law of expiry holds in all of them, and planted bugs are caught."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from ekko.schemas.blocks import Purpose
from ekko.storage.store_reads import StoreReads
from ekko.streams.fanout.classes import EpochClasses
from ekko.streams.operations import retract
from tests.simulation.environment import CENTRAL
from tests.simulation.expiring import simulate_expiring
from tests.simulation.truth import Truth

SEEDS = 25
SEEDS_A_MUTATION = 45


@contextmanager
def silent() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.timeout(600)
def test_the_law_of_expiry_holds_and_is_put_to_the_test() -> None:
    found = dict.fromkeys(("expired", "corrected", "rolled back"), 0)
    with silent():
        for seed in range(SEEDS):
            world = simulate_expiring(seed)
            truth = Truth(world.environment.brokers[CENTRAL], world.scenario.model)
            for entry in truth.accepted:
                if entry.block.trainer.startswith("expire/") and len(entry.block.keys):
                    found["expired"] += entry.block.purpose is Purpose.EXPIRE
                    found["corrected"] += entry.block.purpose is Purpose.RETRACT
                    found["rolled back"] += truth.is_void(entry.effective)
    assert all(found.values()), found


def retractions_know_of_no_expiry() -> Any:
    """A retraction takes back what has expired once more."""
    return patch.object(retract, "corrections", lambda *_: iter(()))


def rows_expire_that_do_not_rest() -> Any:
    """A store streams all rows for idle ones."""
    original = StoreReads.items
    return patch.object(StoreReads, "items", lambda self, table, as_of=None, **_: original(self, table, as_of))


def sums_are_as_old_as_their_oldest_delta() -> Any:
    """A lane block of several epochs does not tell the newest arrival in it."""
    return patch.object(EpochClasses, "newest", lambda _, arrival, __: arrival)


MUTATIONS: dict[Callable[[], Any], int] = {
    retractions_know_of_no_expiry: 5,
    rows_expire_that_do_not_rest: 0,
    sums_are_as_old_as_their_oldest_delta: 42,
}
"""Each with the seed that is tried first, for it has minded the bug before: to go through others takes minutes."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_planted_bug_is_caught(mutation: Callable[[], Any]) -> None:
    with silent(), mutation():
        caught = any(_is_caught(seed) for seed in (MUTATIONS[mutation], *range(SEEDS_A_MUTATION)))
    assert caught, f"no seed below {SEEDS_A_MUTATION} minds it"


def _is_caught(seed: int) -> bool:
    try:
        simulate_expiring(seed)
    except AssertionError as error:
        return "did not expire exactly" in str(error) or "had a delta" in str(error)
    return False
