"""How far regions have come."""

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.replicas import Member, ReplicaState, ShardPosition
from ekko.streams.manager.progress import has_undone, region_progress

MODEL = ModelDeclaration("ctr", shards=3, incarnation=4)


def vector(complete: dict[int, int], incarnation: int = 4, region_incarnation: int = 2, bound: int = 0) -> ReplicaState:
    shards = {shard: ShardPosition(complete=epoch) for shard, epoch in complete.items()}
    return ReplicaState("ctr", incarnation, region_incarnation, shards, (EpochRange(1, 2),), bound=bound)


def member(replica: str, readable: ReplicaState, durable: ReplicaState | None = None) -> Member:
    return Member("east", replica, "h:1", True, 0, 0, (readable,), () if durable is None else (durable,))


def test_a_region_is_as_far_as_its_best_replica_of_its_worst_shard() -> None:
    members = [member("a", vector({0: 5, 1: 3}), vector({0: 4, 1: 3})), member("b", vector({1: 6, 2: 4}))]
    progress = region_progress(members, MODEL, 2)
    assert (progress.readable, progress.durable, progress.missing) == (4, 0, ())


def test_shards_without_a_replica_are_named() -> None:
    progress = region_progress([member("a", vector({0: 5, 2: 5}))], MODEL, 2)
    assert (progress.readable, progress.missing) == (0, (1,))


def test_other_incarnations_are_other_models() -> None:
    members = [
        member("a", vector({0: 5, 1: 5, 2: 5}, incarnation=1)),
        member("b", vector({0: 5}, region_incarnation=9)),
    ]
    assert region_progress(members, MODEL, 2).missing == (0, 1, 2)


def test_the_bound_is_the_best_replica_of_the_worst_shard() -> None:
    members = [member("a", vector({0: 0, 1: 0}, bound=3)), member("b", vector({1: 0, 2: 0}, bound=1))]
    assert region_progress(members, MODEL, 2).bound == 3


def test_undone_means_the_vector_holds_the_void() -> None:
    assert has_undone(vector({}), EpochRange(1, 2))
    assert not has_undone(vector({}), EpochRange(1, 3))
