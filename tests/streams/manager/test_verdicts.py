"""Rules of health."""

from ekko.schemas.epochs import Barrier, EpochRange, ModelState, Verdict
from ekko.streams.manager.verdicts import Probation, after_barrier, last_healthy


def state(epoch: int, verdict: Verdict = Verdict.CANDIDATE) -> ModelState:
    return ModelState("ctr", 0, epoch, 0, (0,), verdict)


def test_a_candidate_is_healthy_after_its_time_complete_everywhere() -> None:
    probation = Probation(60)
    states = [state(1), state(2)]
    assert probation.passed(states, {"east": 1, "west": 0}, 0) == []
    assert probation.passed(states, {"east": 2, "west": 1}, 100) == []
    assert probation.passed(states, {"east": 2, "west": 1}, 159) == []
    (healthy,) = probation.passed(states, {"east": 2, "west": 1}, 160)
    assert (healthy.epoch, healthy.verdict, healthy.changed_us) == (1, Verdict.HEALTHY, 160_000_000)


def test_a_region_that_falls_back_restarts_the_probation() -> None:
    probation = Probation(10)
    probation.passed([state(1)], {"east": 1}, 0)
    probation.passed([state(1)], {"east": 0}, 5)
    assert probation.passed([state(1)], {"east": 1}, 12) == []
    assert len(probation.passed([state(1)], {"east": 1}, 22)) == 1


def test_without_regions_and_for_suspects_nothing_passes() -> None:
    assert Probation(0).passed([state(1)], {}, 0) == []
    assert Probation(0).passed([state(1, Verdict.SUSPECT), state(1, Verdict.CORRUPT)], {"east": 9}, 0) == []


def test_what_a_rollback_voided_is_corrupt_and_what_is_withdrawn_says_so() -> None:
    barrier = Barrier(0, 5, 1, 0, voids=(EpochRange(2, 4),), withdrawn=(EpochRange(1, 1),))
    changed = after_barrier(barrier, [state(epoch) for epoch in range(1, 6)], 7)
    assert {one.epoch: one.verdict for one in changed} == {
        1: Verdict.WITHDRAWN,
        3: Verdict.CORRUPT,
        4: Verdict.CORRUPT,
    }
    assert changed[1].reason == "voided by a rollback to state 2"
    assert after_barrier(barrier, changed, 8) == []


def test_last_healthy_is_the_newest() -> None:
    assert last_healthy([state(1, Verdict.HEALTHY), state(3, Verdict.HEALTHY), state(4)]) == state(3, Verdict.HEALTHY)
    assert last_healthy([state(4)]) is None
