"""How far a region's replicas have come with a model: pure functions over their announcements."""

from collections.abc import Iterable
from dataclasses import dataclass

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.replicas import Member, ReplicaState


@dataclass(frozen=True, slots=True)
class RegionProgress:
    """A model in a region, over all its replicas.

    Attributes:
        readable: the last state at which every shard is complete in memory at some replica.
        durable: the same as of the replicas' last flushes.
        missing: shards that no replica owns.
        bound: the oldest state that every shard can undo at some replica.
    """

    readable: int
    durable: int
    missing: tuple[int, ...]
    bound: int


def region_progress(
    members: Iterable[Member], model: ModelDeclaration, region_incarnation: int | None
) -> RegionProgress:
    """Progress of a region with these members; a region without replicas stands at state 0."""
    present = list(members)
    readable = _states((member.models for member in present), model, region_incarnation)
    durable = _states((member.durable for member in present), model, region_incarnation)
    best = _best_complete(readable)
    bounds: dict[int, int] = {}
    for state in readable:
        for shard in state.shards:
            bounds[shard] = min(state.bound, bounds.get(shard, state.bound))
    return RegionProgress(
        readable=_over_all_shards(best, model),
        durable=_over_all_shards(_best_complete(durable), model),
        missing=tuple(shard for shard in range(model.shards) if shard not in best),
        bound=max(bounds.values(), default=0),
    )


def has_undone(state: ReplicaState, void: EpochRange) -> bool:
    """Whether a replica has taken `void` back."""
    return any(known.first <= void.first and void.last <= known.last for known in state.voids)


def replica_state(
    states: Iterable[ReplicaState], model: ModelDeclaration, region_incarnation: int | None
) -> ReplicaState | None:
    """The vector of `model`'s present incarnation among a replica's vectors."""
    for state in states:
        if (state.model, state.incarnation, state.region_incarnation) == (
            model.name,
            model.incarnation,
            region_incarnation,
        ):
            return state
    return None


def _states(
    announced: Iterable[tuple[ReplicaState, ...]], model: ModelDeclaration, region_incarnation: int | None
) -> list[ReplicaState]:
    found = (replica_state(states, model, region_incarnation) for states in announced)
    return [state for state in found if state is not None]


def _best_complete(states: Iterable[ReplicaState]) -> dict[int, int]:
    best: dict[int, int] = {}
    for state in states:
        for shard, position in state.shards.items():
            best[shard] = max(position.complete, best.get(shard, 0))
    return best


def _over_all_shards(best: dict[int, int], model: ModelDeclaration) -> int:
    return min(best.get(shard, 0) for shard in range(model.shards))
