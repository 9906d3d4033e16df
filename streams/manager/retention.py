"""Which states to give up: every one is kept for a while, then a few an hour, then one an hour, then none (pure).

Between two states that are kept, stores unite their journals, so memory and disk grow with the states that are left and
not with time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from ekko.schemas.epochs import Barrier, ModelState, Verdict
from ekko.streams.manager.verdicts import last_healthy

_RANK = {Verdict.HEALTHY: 0, Verdict.CANDIDATE: 1, Verdict.SUSPECT: 2, Verdict.CORRUPT: 3}


@dataclass(frozen=True, slots=True)
class Tier:
    """Up to an age of `age_s` one state in `spacing_s` seconds is kept; 0: every one."""

    age_s: float
    spacing_s: float


TIERS = (Tier(600, 0), Tier(6 * 3600, 600), Tier(48 * 3600, 3600))
"""Every state for 10 minutes, six an hour for 6 hours, one an hour for 2 days."""

CALENDAR_DAYS = 400
_DAY_US = 86_400_000_000


def to_withdraw(
    states: Iterable[ModelState], barrier: Barrier, now_us: int, tiers: tuple[Tier, ...] = TIERS
) -> set[int]:
    """States to be withdrawn in the next barrier.

    Kept are pinned states and the last healthy one, however old; of several in one slot of a tier the healthiest,
    and of equals the oldest. State 0, the beginning, goes when it is the oldest and beyond the last tier.
    """
    left = [state for state in states if not any(state.epoch in run for run in barrier.withdrawn)]
    healthy = last_healthy(left)
    kept = {state.epoch for state in left if state.pinned} | ({healthy.epoch} if healthy else set())
    slots: dict[tuple[int, int], ModelState] = {}
    for state in left:
        slot = _slot(state, now_us, tiers)
        if slot is None:
            kept.add(state.epoch)
        elif slot[0] < len(tiers) and state.verdict is not Verdict.CORRUPT:
            slots[slot] = min(slots.get(slot, state), state, key=lambda one: (_RANK[one.verdict], one.epoch))
    kept |= {state.epoch for state in slots.values()}
    given_up = {state.epoch for state in left} - kept
    if given_up and min(given_up) < min(kept, default=inf) and not any(0 in run for run in barrier.withdrawn):
        given_up |= {0} if _is_beyond(min(left, key=lambda one: one.epoch), now_us, tiers) else set()
    return given_up


def to_forget(states: Iterable[ModelState], now_us: int, tiers: tuple[Tier, ...] = TIERS) -> set[int]:
    """Withdrawn states whose records may go, too: beyond the last tier nobody asks for their offsets.

    The first of a day stays for `CALENDAR_DAYS`: by those states expiry knows how old an epoch is.
    """
    known = sorted(states, key=lambda state: state.epoch)
    calendar: dict[int, int] = {}
    for state in known:
        if now_us - state.written_us < CALENDAR_DAYS * _DAY_US:
            calendar.setdefault(state.written_us // _DAY_US, state.epoch)
    gone = {state.epoch for state in known if state.verdict is Verdict.WITHDRAWN and _is_beyond(state, now_us, tiers)}
    return gone - set(calendar.values())


def _slot(state: ModelState, now_us: int, tiers: tuple[Tier, ...]) -> tuple[int, int] | None:
    """The tier and the place in it for which a state competes; None where every state is kept."""
    age_s = (now_us - state.written_us) / 1e6
    for number, tier in enumerate(tiers):
        if age_s < tier.age_s:
            return None if not tier.spacing_s else (number, int(state.written_us / 1e6 / tier.spacing_s))
    return len(tiers), 0


def _is_beyond(state: ModelState, now_us: int, tiers: tuple[Tier, ...]) -> bool:
    return (now_us - state.written_us) / 1e6 >= tiers[-1].age_s
