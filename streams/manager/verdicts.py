"""What is known of the model states' health: pure rules over states, barrier and regions' progress."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ekko.schemas.epochs import Barrier, ModelState, Verdict

JUDGED = frozenset({Verdict.CORRUPT, Verdict.WITHDRAWN})
"""Verdicts that nothing changes any more, save withdrawal."""


def after_barrier(barrier: Barrier, states: Iterable[ModelState], now_us: int) -> list[ModelState]:
    """States that do not say yet what follows from the barrier: verdicts by voids and withdrawals, and which is pinned.

    State k of a void [k, m] is what the model returned to; k + 1 to m held voided deltas and are corrupt.
    """
    follows = ((state, _following(barrier, state, now_us)) for state in states)
    return [new for old, new in follows if new != old]


def _following(barrier: Barrier, state: ModelState, now_us: int) -> ModelState:
    state = replace(state, pinned=state.epoch == barrier.pinned)
    void = next((void for void in barrier.voids if void.first < state.epoch <= void.last), None)
    if any(state.epoch in run for run in barrier.withdrawn):
        if state.verdict is not Verdict.WITHDRAWN:
            return replace(state, verdict=Verdict.WITHDRAWN, changed_us=now_us)
    elif void is not None and state.verdict is not Verdict.CORRUPT:
        reason = f"voided by a rollback to state {void.first}"
        return replace(state, verdict=Verdict.CORRUPT, reason=reason, changed_us=now_us)
    return state


class Probation:
    """Since when each candidate has been complete in all regions.

    Kept in memory only: after a takeover every candidate's probation begins anew, which delays a verdict and never
    gives a wrong one.
    """

    def __init__(self, healthy_after_s: float) -> None:
        self._healthy_after_s = healthy_after_s
        self._since: dict[int, float] = {}

    def passed(self, states: Iterable[ModelState], complete: Mapping[str, int], now_s: float) -> list[ModelState]:
        """Candidates that are healthy from now on.

        Args:
            states: all states of the model.
            complete: for every region of the catalogue, the last state at which all shards are complete there.
            now_s: seconds since 1970.
        """
        everywhere = min(complete.values(), default=-1)
        candidates = {state.epoch: state for state in states if state.verdict is Verdict.CANDIDATE}
        self._since = {epoch: self._since.get(epoch, now_s) for epoch in sorted(candidates) if epoch <= everywhere}
        ripe = [epoch for epoch, since in self._since.items() if now_s - since >= self._healthy_after_s]
        return [
            replace(candidates[epoch], verdict=Verdict.HEALTHY, reason="", changed_us=int(now_s * 1e6))
            for epoch in ripe
        ]


def last_healthy(states: Iterable[ModelState]) -> ModelState | None:
    """The newest state to which an automatic rollback may return."""
    return max(
        (state for state in states if state.verdict is Verdict.HEALTHY), key=lambda state: state.epoch, default=None
    )
