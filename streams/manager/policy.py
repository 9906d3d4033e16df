"""What the state manager does about the monitor's proposals, by itself (pure)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ekko.schemas.epochs import Barrier, ModelState, Verdict
from ekko.streams.health.proposals import Proposal
from ekko.streams.manager.verdicts import last_healthy

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class RollBack:
    """Roll back to this state."""

    state: int


@dataclass(frozen=True, slots=True)
class ServePinned:
    """Give readers the rows of this state, and call a person: no rollback is left."""

    state: int
    why: str


@dataclass(frozen=True, slots=True)
class Alarm:
    """A person is needed: nothing that the policy may do is left."""

    why: str


def suspected(states: Sequence[ModelState], proposal: Proposal, now_us: int) -> list[ModelState]:
    """States that change with a proposal: candidates become suspect with an alarm, and candidates again after it.

    A state is a candidate for as long as its probation, so whatever was learnt shortly before the alarm is covered.
    """
    if proposal.verdict is Verdict.HEALTHY:
        changes = {Verdict.SUSPECT: Verdict.CANDIDATE}
    else:
        changes = {Verdict.CANDIDATE: Verdict.SUSPECT}
    reason = "" if proposal.verdict is Verdict.HEALTHY else proposal.reason
    return [
        replace(state, verdict=changes[state.verdict], reason=reason, changed_us=now_us)
        for state in states
        if state.verdict in changes
    ]


def answer(
    proposal: Proposal,
    barrier: Barrier,
    states: Mapping[int, ModelState],
    rollbacks_us: Sequence[int],
    *,
    now_us: int,
    limit: int,
) -> RollBack | ServePinned | Alarm | None:
    """What is to be done about a proposal.

    Where no rollback is left it is the pinned state that is served, or else the one to roll back to, until a person
    lets readers have live rows again.

    Args:
        rollbacks_us: when automatic rollbacks were done.
        limit: how many of them an hour may have.
    """
    if proposal.verdict is not Verdict.CORRUPT or proposal.since_us <= _last_rollback_us(barrier, states):
        return None  # nothing grave, or an episode about which something was done
    recent = [done for done in rollbacks_us if now_us - done < _HOUR_US]
    # A state to which the model was returned within the hour, and that went bad again, was not healthy after all.
    tried = {void.first for void in barrier.voids[-len(recent) :]} if recent else set()
    earliest = min(tried, default=barrier.epoch + 1)
    untried = [state for state in states.values() if state.epoch < earliest]
    # Labels may come so late that states of the episode itself have become healthy; they are better than none.
    before = [state for state in untried if state.written_us <= proposal.since_us]
    healthy = last_healthy(before) or last_healthy(untried)
    target = healthy.epoch if healthy is not None else None
    if len(recent) < limit:
        return RollBack(target) if target is not None else Alarm(f"no healthy state to return to: {proposal.reason}")
    why = f"{len(recent)} automatic rollbacks within an hour, {limit} are allowed: {proposal.reason}"
    served = target if barrier.pinned is None else barrier.pinned
    if served is None or barrier.serves_pinned or not limit:
        return Alarm(why)
    return ServePinned(served, why)


def _last_rollback_us(barrier: Barrier, states: Mapping[int, ModelState]) -> int:
    """When the model was last rolled back, by whomever; 0 if never."""
    if not barrier.voids:
        return 0
    opened = states.get(barrier.voids[-1].last + 1)
    return opened.written_us if opened is not None else barrier.written_us
