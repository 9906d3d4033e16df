"""Rolling a model back: what it would mean, whether it can be done, and who has done it (pure)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, ModelState
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.replicas import Member
from ekko.streams.manager.barriers import Amendment, rolling_back
from ekko.streams.manager.progress import has_undone, replica_state
from ekko.streams.manager.verdicts import last_healthy

SILENT_AFTER_S = 10.0
"""A replica that has announced nothing for so long is down: nobody waits for it, it undoes when it returns."""


@dataclass(frozen=True, slots=True)
class Region:
    """A region as the planner sees it: its incarnation and what its replicas announced last.

    Attributes:
        seeded: made from a donor's snapshot: as long as it has no replica it is still being made.
        kept_s: by model, how long its lanes keep records there, the shorter one, seconds; as far as known.
    """

    incarnation: int | None
    members: tuple[Member, ...]
    seeded: bool = False
    kept_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """What a rollback would do.

    Attributes:
        to: the state to return to; 0 is the empty beginning.
        void: epochs whose deltas are taken back, as of now (the barrier may close a later one).
        generation: the one that begins.
        obstacles: regions that have no replica able to undo so far, in words.
    """

    to: int
    void: EpochRange
    generation: int
    obstacles: tuple[str, ...]


def plan_rollback(
    model: ModelDeclaration,
    barrier: Barrier,
    states: Mapping[int, ModelState],
    regions: Mapping[str, Region],
    to: int | None = None,
) -> RollbackPlan:
    """Plan a return to state `to`, or to the last healthy one.

    Raises:
        StateUnavailable: no healthy state, or `to` does not exist, is withdrawn or was itself voided.
    """
    target = to if to is not None else _last_healthy(states)
    following = returning(target)(_next(barrier))
    return RollbackPlan(target, following.voids[-1], following.generation, obstacles(model, regions, target))


def returning(to: int) -> Amendment:
    """As `rolling_back`, and refused as well where somebody has taken state `to` itself back in the meantime.

    Raises (when applied):
        StateUnavailable: it was; or see `rolling_back`.
    """

    def amend(barrier: Barrier) -> Barrier:
        voided = next((void for void in barrier.voids if void.first < to <= void.last), None)
        if voided is not None:
            raise StateUnavailable(
                f"state {to} was itself taken back by a rollback to state {voided.first}",
                hint=f"roll back to state {voided.first} or an earlier one",
            )
        return rolling_back(to)(barrier)

    return amend


def obstacles(model: ModelDeclaration, regions: Mapping[str, Region], target: int) -> tuple[str, ...]:
    """Regions that have no replica able to go back to state `target`, in words."""
    return tuple(
        f"region {name}: no replica can undo shards {shards} back to state {target} ({bounds})"
        for name, region in regions.items()
        for shards, bounds in _unable(model, region, target)
    )


def _last_healthy(states: Mapping[int, ModelState]) -> int:
    state = last_healthy(states.values())
    if state is None:
        raise StateUnavailable("no state is known to be healthy", hint="choose one of `ekko states MODEL` with --to")
    return state.epoch


def _next(barrier: Barrier) -> Barrier:
    return Barrier(
        barrier.incarnation,
        barrier.epoch + 1,
        barrier.generation,
        barrier.catalogue_end,
        barrier.voids,
        barrier.withdrawn,
    )


def _unable(model: ModelDeclaration, region: Region, target: int) -> list[tuple[str, str]]:
    """Shards that have replicas, but none that reaches back to `target`; a region without replicas holds nothing.

    What a replica announced that is silent while others are not counts only for shards that none of these has.
    """
    newest_us = max((member.written_us for member in region.members), default=0)
    up = [member for member in region.members if newest_us - member.written_us <= SILENT_AFTER_S * 1e6]
    bounds = _bounds(model, region.incarnation, region.members) | _bounds(model, region.incarnation, up)
    unable = sorted(shard for shard, bound in bounds.items() if bound > target)
    if not unable:
        return []
    oldest = max(bounds[shard] for shard in unable)
    return [(",".join(map(str, unable)), f"the oldest they can is {oldest}")]


def _bounds(model: ModelDeclaration, incarnation: int | None, members: Iterable[Member]) -> dict[int, int]:
    """The oldest state that one of these replicas can undo, by shard."""
    bounds: dict[int, int] = {}
    for member in members:
        state = replica_state(member.models, model, incarnation)
        if state is not None:
            for shard in state.shards:
                bounds[shard] = min(state.bound, bounds.get(shard, state.bound))
    return bounds


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A replica has taken the void back: `stage` is 'readable' or 'durable'; `rows` changed there, if it tells."""

    region: str
    replica: str
    stage: str
    rows: int | None = field(default=None, compare=False)


@dataclass(slots=True)
class Acknowledgements:
    """Who has taken a void back, as announcements come in; only `durable` counts as done."""

    model: ModelDeclaration
    void: EpochRange
    seen: set[Acknowledgement] = field(default_factory=set)

    def take(self, regions: Mapping[str, Region]) -> list[Acknowledgement]:
        """New acknowledgements in these announcements."""
        new = [
            acknowledgement
            for name, region in regions.items()
            for member in region.members
            for acknowledgement in self._of(name, region, member)
            if acknowledgement not in self.seen
        ]
        self.seen.update(new)
        return new

    def missing(self, regions: Mapping[str, Region], now_s: float) -> list[str]:
        """Replicas, as region/replica, that are up and not durable yet."""
        return [f"{name}/{each.replica}" for name, each in self._not_durable(regions) if not _is_silent(each, now_s)]

    def silent(self, regions: Mapping[str, Region], now_s: float) -> list[str]:
        """Replicas, as region/replica, that are not heard and have not acknowledged: they undo when they are back."""
        return [f"{name}/{each.replica}" for name, each in self._not_durable(regions) if _is_silent(each, now_s)]

    def without(self, regions: Mapping[str, Region]) -> list[str]:
        """Regions that have replicas of the model, and none of them durable."""
        durable = {one.region for one in self.seen if one.stage == "durable"}
        return sorted({name for name, _ in self._not_durable(regions)} - durable)

    def _not_durable(self, regions: Mapping[str, Region]) -> list[tuple[str, Member]]:
        return [
            (name, member)
            for name, region in sorted(regions.items())
            for member in sorted(region.members, key=lambda member: member.replica)
            if replica_state(member.models, self.model, region.incarnation) is not None
            and Acknowledgement(name, member.replica, "durable") not in self.seen
        ]

    def _of(self, name: str, region: Region, member: Member) -> Iterable[Acknowledgement]:
        for stage, states in (("readable", member.models), ("durable", member.durable)):
            state = replica_state(states, self.model, region.incarnation)
            if state is not None and has_undone(state, self.void):
                rows = next((undone.rows for undone in member.undone if undone.void == self.void), None)
                yield Acknowledgement(name, member.replica, stage, rows)


def _is_silent(member: Member, now_s: float) -> bool:
    return now_s - member.written_us / 1e6 > SILENT_AFTER_S
