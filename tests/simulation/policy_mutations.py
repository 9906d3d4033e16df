"""Bugs to be planted in what a manager does by itself, see `mutations`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from ekko.schemas.epochs import Barrier
from ekko.streams.health.proposals import Proposal
from ekko.streams.manager import automatic, policy
from ekko.streams.manager.automatic import AutomaticRollback
from ekko.streams.manager.model import ModelManager
from ekko.streams.manager.policy import answer
from tests.simulation.checks.automatic import HOUR_US
from tests.simulation.scenario import Scenario


def takeover_forgets_the_rollbacks() -> Any:
    """Whoever takes over begins a new hour."""
    original = AutomaticRollback.__init__
    return patch.object(AutomaticRollback, "__init__", lambda self, *rest: original(self, *rest[:-1], []))


def an_hour_is_too_long() -> Any:
    """By a microsecond: a rollback that is just an hour ago still counts."""
    return patch.object(policy, "_HOUR_US", HOUR_US + 1)


def an_hour_is_too_short() -> Any:
    """A rollback counts no more when its hour is about to end."""
    return patch.object(policy, "_HOUR_US", HOUR_US - 2_000)


def an_hour_has_one_more() -> Any:
    """The limit is not the last rollback, but the one after."""
    return patch.object(automatic, "answer", lambda *rest, limit, **named: answer(*rest, limit=limit + 1, **named))


def what_went_bad_again_is_served() -> Any:
    """The state to which the model was returned within the hour counts as healthy still."""

    def served(proposal: Proposal, barrier: Barrier, *rest: Any, **named: Any) -> Any:
        action = answer(proposal, barrier, *rest, **named)
        serves = isinstance(action, policy.ServePinned) and barrier.pinned is None
        return replace(action, state=barrier.voids[-1].first) if serves else action

    return patch.object(automatic, "answer", served)


def nobody_is_called() -> Any:
    """A manager serves a pinned state, or does nothing, and tells nobody."""
    return patch.object(ModelManager, "alarm", property(lambda _: ""))


def _condemned(scenario: Scenario) -> bool:
    return scenario.condemnations > 0


def _hourly(scenario: Scenario) -> bool:
    return _condemned(scenario) and scenario.hours > 0


POLICY_MUTATIONS: dict[Callable[[], Any], Callable[[Scenario], bool]] = {
    takeover_forgets_the_rollbacks: _condemned,
    an_hour_is_too_long: _hourly,
    an_hour_is_too_short: _hourly,
    an_hour_has_one_more: _condemned,
    what_went_bad_again_is_served: _condemned,
    nobody_is_called: _condemned,
}
