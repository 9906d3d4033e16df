"""Which store an export reads which shard from, where a region's shards are spread over several."""

import pytest

from ekko.ops.exchange.holders import assign, newest_state
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import NotReady
from ekko.schemas.replicas import Member, ReplicaState, ShardPosition

MODEL = ModelDeclaration("ctr", shards=4, tables=(TableDeclaration("embedding", 8),))


def store(port: int, *shards: int, complete: int = 9, ready: bool = True, halted: tuple[str, ...] = ()) -> Member:
    positions = {shard: ShardPosition(complete=complete) for shard in shards}
    states = (ReplicaState("other", 1, 1, {0: ShardPosition()}), ReplicaState("ctr", 2, 1, positions))
    return Member("east", str(port), f"10.0.0.1:{port}", ready, 1, 2, states, states, dict.fromkeys(halted, "why"))


def plan(*members: Member) -> dict[str, tuple[int, ...]]:
    return {holder.address.rpartition(":")[2]: holder.shards for holder in assign(MODEL, members)}


def test_shards_that_lie_on_several_stores_are_each_read_once() -> None:
    assert plan(store(1, 0, 1), store(2, 2, 3)) == {"1": (0, 1), "2": (2, 3)}
    assert plan(store(1, 0, 1), store(2, 1, 2), store(3, 3)) == {"1": (0, 1), "2": (2,), "3": (3,)}


def test_as_few_stores_as_are_needed() -> None:
    assert plan(store(1, 0, 1), store(2, 0, 1, 2, 3), store(3, 2, 3)) == {"2": (0, 1, 2, 3)}


def test_a_shard_that_stands_still_is_read_elsewhere() -> None:
    assert plan(store(1, 0, 1, 2, 3, halted=("ctr/2", "other/1")), store(2, 2, 3)) == {"1": (0, 1, 3), "2": (2,)}


@pytest.mark.parametrize(
    ("members", "missing"),
    [
        ([], "[0, 1, 2, 3]"),
        ([store(1, 0, 1, 2)], "[3]"),
        ([store(1, 0, 1, 2, 3, ready=False)], "[0, 1, 2, 3]"),
        ([store(1, 0, 1, 2, 3, halted=("ctr/0",))], "[0]"),
    ],
)
def test_a_shard_that_nobody_can_tell_is_named(members: list[Member], missing: str) -> None:
    with pytest.raises(NotReady) as told:
        assign(MODEL, members)
    assert f"shard(s) {missing} of model ctr" in told.value.message


def test_the_newest_state_is_one_that_all_of_them_can_tell() -> None:
    assert newest_state(assign(MODEL, [store(1, 0, 1, complete=9), store(2, 2, 3, complete=7)])) == 7
    with pytest.raises(NotReady, match="no model state is complete"):
        newest_state(assign(MODEL, [store(1, 0, 1, complete=9), store(2, 2, 3, complete=0)]))
