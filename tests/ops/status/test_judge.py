"""`ekko status`, the judging: each thing that goes wrong gives its finding, and nothing else does."""

from dataclasses import replace

import pytest

from ekko.ops.findings import Level, exit_code
from ekko.ops.status.facts import Facts, Instance, LaneFacts, ModelFacts, RegionFacts
from ekko.ops.status.judge import judge, usual_interval_s
from ekko.ops.status.signals import Heard
from ekko.ops.status.view import as_data, as_text
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, ModelState, Settled, Verdict
from ekko.schemas.replicas import FanoutState, Member, ReplicaState, ShardPosition
from ekko.schemas.signals import Shares
from ekko.streams.health.proposals import to_signal
from ekko.streams.health.verdict import Judgement
from ekko.streams.log import Bounds

NOW_US = 1_800_000_000_000_000
SECOND = 1_000_000
MODEL = ModelDeclaration("ctr", shards=2, tables=(TableDeclaration("embedding", 4),), incarnation=0)
REGION = RegionDeclaration("east", incarnation=1)
SHARDS = (0, 1)


def state(epoch: int, age_s: float, verdict: Verdict = Verdict.HEALTHY) -> ModelState:
    written = NOW_US - int(age_s * SECOND)
    return ModelState("ctr", 0, epoch, 0, (10 * epoch, 10 * epoch), verdict, written_us=written)


STATES = {epoch: state(epoch, age_s=12.0 + 5 * (4 - epoch)) for epoch in (1, 2, 3, 4)}
BARRIER = Barrier(0, 4, 0, 5, written_us=NOW_US - 12 * SECOND)
VECTOR = ReplicaState("ctr", 0, 1, {shard: ShardPosition(complete=4) for shard in SHARDS})
MEMBER = Member("east", "a", "10.0.0.1:7070", True, 1, NOW_US - SECOND, models=(VECTOR,), durable=(VECTOR,))
LANES = LaneFacts(
    {
        shard: FanoutState(0, 1, shard, 9, 9, 0, upto=42, settled=Settled(41, 4, 0), express_start=0, bulk_start=0)
        for shard in SHARDS
    },
    rejected=0,
)
CENTRE = ModelFacts(MODEL, BARRIER, STATES, {shard: Bounds(0, 43) for shard in SHARDS})
EAST = RegionFacts(REGION, "", (MEMBER,), {"one": Instance(NOW_US - SECOND)}, {"ctr": LANES})
WELL = Facts((CENTRE,), (EAST,), {"ctr": Shares("ctr", 0, 1.0, 0.1, NOW_US - SECOND)})


def test_a_monitor_that_judges_is_alive_though_an_idle_model_gives_it_nothing_to_share() -> None:
    idle = replace(WELL, shares={"ctr": Shares("ctr", 0, 1.0, 0.1, NOW_US - 300 * SECOND)})

    def told(age_s: int) -> list[str]:
        verdict = to_signal("ctr", Judgement(Verdict.HEALTHY, 0.0, ""))
        facts = replace(idle, heard=[Heard((NOW_US - age_s * SECOND) // 1000, verdict)])
        return [finding.text for finding in judge(facts, NOW_US, 5.0) if finding.part == "monitor"]

    assert told(age_s=11) == []
    assert told(age_s=70) == ["model ctr: the monitor has said nothing for 70 s"]


def test_no_barrier_for_a_quarter_of_the_shortest_retention_is_an_alarm_of_its_own() -> None:
    def found(source_s: float, lanes_s: float) -> list[str]:
        lanes = with_region(lanes={"ctr": replace(LANES, retention_s=lanes_s)})
        facts = replace(lanes, models=(replace(CENTRE, retention_s=source_s),))
        return [finding.text for finding in judge(facts, NOW_US, 5.0) if finding.level is Level.PROBLEM]

    assert found(49, 1_000) == found(1_000, 49) == []  # the last barrier is 12 s old
    for text in (*found(47, 1_000), *found(1_000, 47)):
        assert "more than a quarter of the 47 s" in text
    assert len(found(47, 1_000)) == len(found(1_000, 47)) == 1


def test_a_pinned_state_that_is_served_is_a_problem_one_that_is_kept_is_not() -> None:
    def problems(barrier: Barrier) -> list[str]:
        facts = with_model(barrier=barrier)
        return [finding.text for finding in judge(facts, NOW_US, 5.0) if finding.level is Level.PROBLEM]

    assert problems(replace(BARRIER, pinned=3)) == []
    assert problems(replace(BARRIER, pinned=3, serves_pinned=True)) == [
        "model ctr: readers get the pinned state 3 in place of live rows"
    ]


def test_blocked_trainers_are_told_and_are_no_trouble() -> None:
    found = list(judge(with_model(barrier=replace(BARRIER, denied=("ann", "bob"))), NOW_US, 5.0))
    assert [finding.text for finding in found if finding.part == "models"] == ["model ctr: blocked trainers: ann, bob"]
    assert exit_code(found) == 0


def with_model(**changes: object) -> Facts:
    return replace(WELL, models=(replace(CENTRE, **changes),))


def with_region(**changes: object) -> Facts:
    return replace(WELL, regions=(replace(EAST, **changes),))


def with_lanes(**changes: object) -> Facts:
    fanout = {shard: replace(each, **changes) for shard, each in LANES.fanout.items()}
    return with_region(lanes={"ctr": replace(LANES, fanout=fanout)})


def with_member(**changes: object) -> Facts:
    return with_region(members=(replace(MEMBER, **changes),))


def test_all_is_well() -> None:
    found = list(judge(WELL, NOW_US, 30.0))
    assert [finding.level for finding in found] == [Level.OK]
    assert "last barrier 12 s ago, usually one every 5 s" in found[0].text
    assert exit_code(found) == 0


LATE = replace(BARRIER, written_us=NOW_US - 16 * SECOND)
OLD_VECTOR = replace(VECTOR, shards={shard: ShardPosition(complete=2) for shard in SHARDS})
HALF = replace(VECTOR, shards={0: ShardPosition(complete=4)})


@pytest.mark.parametrize(
    ("facts", "level", "part", "words"),
    [
        (Facts((), (), {}), "warning", "models", "no model is declared"),
        (with_model(barrier=None, states={}), "problem", "barriers", "no barrier yet"),
        (with_model(barrier=LATE), "problem", "barriers", "last barrier 16 s ago"),
        (with_model(states={**STATES, 4: state(4, 12, Verdict.CORRUPT)}), "problem", "states", "state 4 is corrupt"),
        (with_model(states={**STATES, 4: state(4, 12, Verdict.SUSPECT)}), "warning", "states", "state 4 is suspect"),
        (with_model(states={**STATES, 2: state(2, 22, Verdict.SUSPECT)}), "warning", "states", "state 2 is suspect"),
        (with_region(failure="no answer"), "problem", "regions", "region east: no answer"),
        (with_region(instances={}), "problem", "fanout", "no fan-out is heard"),
        (with_region(instances={"one": Instance(NOW_US - 60 * SECOND)}), "problem", "fanout", "the last one 60 s ago"),
        (
            with_region(instances={"one": Instance(NOW_US - SECOND, {"ctr/1": "a newer format"})}),
            "problem", "fanout", "fan-out one: ctr/1 stands still: a newer format",
        ),
        (with_lanes(upto=40), "problem", "fanout", "shard(s) 0,1 not read up to state 4"),
        (with_region(lanes={"ctr": LaneFacts({}, 0)}), "problem", "fanout", "shard(s) 0,1 not read up to state 4"),
        (with_member(ready=False), "problem", "stores", "replica a (10.0.0.1:7070) is not ready"),
        (with_member(halted={"ctr/1": "gap at 7"}), "problem", "stores", "ctr/1 stands still: gap at 7"),
        (with_member(written_us=NOW_US - 30 * SECOND), "problem", "stores", "was last heard 30 s ago"),
        (with_member(written_us=NOW_US - 30 * SECOND), "problem", "stores", "shard(s) 0,1 are held by no replica"),
        (with_member(models=(HALF,)), "problem", "stores", "shard(s) 1 are held by no replica"),
        (with_member(models=(OLD_VECTOR,)), "problem", "stores", "complete at state 2, though all up to state 4"),
        (with_region(members=()), "problem", "stores", "shard(s) 0,1 are held by no replica"),
        (
            replace(WELL, shares={"ctr": Shares("ctr", 0, 1.0, 0.1, NOW_US - 300 * SECOND)}),
            "problem", "monitor", "has said nothing for 300 s",
        ),
        (replace(WELL, shares={}), "warning", "monitor", "no monitor has been heard"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_wrong_is_found(facts: Facts, level: str, part: str, words: str) -> None:
    found = list(judge(facts, NOW_US, 30.0))
    (mine,) = [finding for finding in found if words in finding.text]
    assert (mine.level, mine.part) == (level, part)
    assert mine.fix
    assert exit_code(found) == (1 if level == "problem" else 0)
    assert "ctr" in as_text(facts, NOW_US) or not facts.models


def test_pending_rows_are_told_before_they_hurt() -> None:
    old = {epoch: state(epoch, age_s=400.0 - 90 * epoch) for epoch in (1, 2, 3, 4)}
    facts = replace(with_lanes(settled=Settled(11, 1, 0)), models=(replace(CENTRE, states=old),))
    (pending,) = [finding for finding in judge(facts, NOW_US, 30.0) if "pending" in finding.text]
    assert pending.level is Level.WARNING
    assert "rows of epoch 1 and later are pending since 220 s" in pending.text


def test_what_can_no_longer_be_taken_over_is_a_problem() -> None:
    facts = with_model(source={shard: Bounds(42, 43) for shard in SHARDS})
    (lost,) = [finding for finding in judge(facts, NOW_US, 30.0) if finding.level is Level.PROBLEM]
    assert "no longer reaches back so far" in lost.text


def test_the_usual_interval_is_the_models_own() -> None:
    assert usual_interval_s(CENTRE, 30.0) == 5.0
    assert usual_interval_s(replace(CENTRE, states={1: STATES[1]}), 30.0) == 30.0


def test_the_numbers_for_programs() -> None:
    (lane,) = as_data(WELL, NOW_US)["regions"]
    assert lane == {
        "region": "east", "model": "ctr", "fan-outs": 1, "halted": "-", "lag records": 2, "settled state": 4,
        "pending epochs": 0, "shards with rejections": 0, "ready": "1/1", "readable": 4, "durable": 4,
    }  # fmt: skip
