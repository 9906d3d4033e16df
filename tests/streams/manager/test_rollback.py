"""Planning a rollback, and who has acknowledged it."""

from dataclasses import replace

import pytest

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, ModelState, Verdict
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.replicas import Member, ReplicaState, ShardPosition
from ekko.streams.manager.barriers import rolling_back
from ekko.streams.manager.rollback import Acknowledgement, Acknowledgements, Region, plan_rollback, returning

MODEL = ModelDeclaration("ctr", shards=2, incarnation=3)
NOW = Barrier(3, 9, 1, 0, voids=(EpochRange(2, 4),), withdrawn=(EpochRange(6, 6),))
STATES = {
    epoch: ModelState("ctr", 3, epoch, 0, (0, 0), Verdict.HEALTHY if epoch in (2, 7) else Verdict.CANDIDATE)
    for epoch in range(1, 10)
}


def member(
    replica: str,
    voids: tuple[EpochRange, ...] = (),
    durable: tuple[EpochRange, ...] = (),
    bound: int = 0,
    at_s: int = 0,
) -> Member:
    shards = {0: ShardPosition(), 1: ShardPosition()}
    states = [ReplicaState("ctr", 3, 5, shards, held, bound=bound) for held in (voids, durable)]
    return Member("east", replica, "h:1", True, 0, at_s * 1_000_000, (states[0],), (states[1],))


def test_the_default_is_the_last_healthy_state() -> None:
    plan = plan_rollback(MODEL, NOW, STATES, {})
    assert (plan.to, plan.void, plan.generation, plan.obstacles) == (7, EpochRange(7, 9), 2, ())
    candidates = {epoch: state for epoch, state in STATES.items() if state.verdict is Verdict.CANDIDATE}
    with pytest.raises(StateUnavailable, match="no state is known to be healthy"):
        plan_rollback(MODEL, NOW, candidates, {})


def test_one_may_go_back_behind_an_earlier_rollback_and_to_the_beginning() -> None:
    assert plan_rollback(MODEL, NOW, STATES, {}, to=1).void == EpochRange(1, 9)
    assert plan_rollback(MODEL, NOW, STATES, {}, to=0).void == EpochRange(0, 9)


@pytest.mark.parametrize(
    ("to", "why"),
    [(10, "does not exist"), (6, "withdrawn"), (3, "taken back by a rollback to state 2"), (-1, "not exist")],
)
def test_targets_that_are_none(to: int, why: str) -> None:
    with pytest.raises(StateUnavailable, match=why):
        plan_rollback(MODEL, NOW, STATES, {}, to)


def test_a_region_is_an_obstacle_only_if_none_of_its_replicas_reaches_back() -> None:
    one = Region(5, (member("a", bound=8), member("b", bound=7)))
    assert plan_rollback(MODEL, NOW, STATES, {"east": one}, 7).obstacles == ()
    (obstacle,) = plan_rollback(MODEL, NOW, STATES, {"east": one, "west": Region(6, ())}, 5).obstacles
    assert obstacle == "region east: no replica can undo shards 0,1 back to state 5 (the oldest they can is 7)"


def test_a_replica_that_is_gone_helps_nobody_but_for_shards_that_no_other_one_has() -> None:
    gone, here = member("gone", bound=3, at_s=100), member("here", bound=8, at_s=1_000)
    (obstacle,) = plan_rollback(MODEL, NOW, STATES, {"east": Region(5, (gone, here))}, 5).obstacles
    assert "shards 0,1 back to state 5 (the oldest they can is 8)" in obstacle
    assert plan_rollback(MODEL, NOW, STATES, {"east": Region(5, (gone,))}, 5).obstacles == ()
    (half,) = here.models
    part = replace(here, models=(replace(half, shards={0: ShardPosition()}),))
    (obstacle,) = plan_rollback(MODEL, NOW, STATES, {"east": Region(5, (gone, part))}, 5).obstacles
    assert "can undo shards 0 back" in obstacle


def test_acknowledgements_come_once_and_only_durable_counts() -> None:
    void = EpochRange(7, 9)
    waiting = Acknowledgements(MODEL, void)
    members = {"east": Region(5, (member("a", (void,), at_s=100), member("b", at_s=100), member("down", at_s=50)))}
    assert waiting.take(members) == [Acknowledgement("east", "a", "readable")]
    assert waiting.missing(members, 101) == ["east/a", "east/b"]
    assert waiting.silent(members, 101) == ["east/down"]
    members = {"east": Region(5, (member("a", (void,), (void,), at_s=102), member("b", (void,), (void,), at_s=102)))}
    assert [(one.replica, one.stage) for one in waiting.take(members)] == [
        ("a", "durable"),
        ("b", "readable"),
        ("b", "durable"),
    ]
    assert waiting.take(members) == []
    assert waiting.missing(members, 103) == []


def test_a_region_of_which_nobody_is_heard_has_not_acknowledged() -> None:
    void = EpochRange(7, 9)
    waiting = Acknowledgements(MODEL, void)
    up, down = Region(5, (member("a", (void,), (void,), at_s=100),)), Region(5, (member("b", at_s=50),))
    regions = {"east": up, "west": down, "without replicas": Region(5, ())}
    waiting.take(regions)
    assert waiting.missing(regions, 101) == []
    assert waiting.silent(regions, 101) == ["west/b"]
    assert waiting.without(regions) == ["west"]
    another = replace(down, members=(*down.members, member("c", (void,), (void,), at_s=100)))
    waiting.take({"west": another})
    assert waiting.silent(regions | {"west": another}, 101) == ["west/b"]
    assert waiting.without(regions | {"west": another}) == []


def test_a_state_that_was_taken_back_after_the_plan_is_refused_when_the_barrier_is_written() -> None:
    meanwhile = rolling_back(5)(NOW)
    with pytest.raises(StateUnavailable, match="state 7 was itself taken back by a rollback to state 5"):
        returning(7)(replace(meanwhile, epoch=10))
    assert returning(5)(replace(meanwhile, epoch=10)).voids[-1] == EpochRange(5, 9)


def test_a_wider_void_holds_a_narrower_one() -> None:
    waiting = Acknowledgements(MODEL, EpochRange(7, 9))
    members = {"east": Region(5, (member("a", (EpochRange(1, 12),)), member("b", (EpochRange(8, 12),))))}
    assert waiting.take(members) == [Acknowledgement("east", "a", "readable")]
