"""The monitor's proposals, and what the manager does about them by itself."""

from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Barrier, EpochRange, ModelState, Verdict
from ekko.streams.health.proposals import Proposal, to_signal
from ekko.streams.health.verdict import Judgement
from ekko.streams.log import Cluster, Partition
from ekko.streams.manager import ManagerSettings, metrics
from ekko.streams.manager.history import read_audit, read_states
from ekko.streams.manager.model import ModelManager
from ekko.streams.manager.policy import Alarm, RollBack, ServePinned, answer, suspected
from ekko.streams.memory.faults import Fate, Faults

from .conftest import World, complete_at, faulty

CORRUPT = Proposal(Verdict.CORRUPT, 50, "loss")


def states(**verdicts: Verdict) -> dict[int, ModelState]:
    numbers = {int(name[1:]): verdict for name, verdict in verdicts.items()}
    return {
        epoch: ModelState("ctr", 0, epoch, 0, (0,), verdict, written_us=epoch * 10)
        for epoch, verdict in numbers.items()
    }


H, C, S = Verdict.HEALTHY, Verdict.CANDIDATE, Verdict.SUSPECT


def test_candidates_are_suspect_while_there_is_an_alarm() -> None:
    changed = suspected(list(states(s1=H, s2=C).values()), Proposal(S, 5, "why"), 7)
    assert [(state.epoch, state.verdict, state.reason, state.changed_us) for state in changed] == [(2, S, "why", 7)]
    (cleared,) = suspected(changed, Proposal(H, 0, ""), 9)
    assert (cleared.verdict, cleared.reason) == (C, "")


def test_corrupt_means_back_to_the_last_healthy_state() -> None:
    held = states(s1=H, s2=H, s3=S)
    assert answer(CORRUPT, Barrier(0, 3, 0, 0), held, [], now_us=60, limit=3) == RollBack(2)
    assert answer(Proposal(S, 50, ""), Barrier(0, 3, 0, 0), held, [], now_us=60, limit=3) is None
    assert isinstance(answer(CORRUPT, Barrier(0, 3, 0, 0), states(s1=C), [], now_us=60, limit=3), Alarm)


def test_a_state_from_after_the_episode_began_is_no_target_though_it_was_called_healthy_before_that_was_known() -> None:
    """Labels come late: what is told at 90 began at 35, and states 4 and 5 have become healthy meanwhile."""
    late, held = Proposal(Verdict.CORRUPT, 35, "loss"), states(s1=H, s2=H, s3=H, s4=H, s5=H, s6=C)
    assert answer(late, Barrier(0, 6, 0, 0), held, [], now_us=90, limit=3) == RollBack(3)
    assert answer(late, Barrier(0, 6, 0, 0), states(s4=H, s5=H), [], now_us=90, limit=3) == RollBack(5), "none older"


def test_one_rollback_an_episode_and_then_further_back() -> None:
    held = states(s1=H, s2=H, s3=Verdict.CORRUPT, s4=C)
    rolled_back = Barrier(0, 4, 1, 0, voids=(EpochRange(2, 3),))
    assert answer(Proposal(Verdict.CORRUPT, 39, ""), rolled_back, held, [40], now_us=60, limit=3) is None
    assert answer(Proposal(Verdict.CORRUPT, 41, ""), rolled_back, held, [40], now_us=60, limit=3) == RollBack(1)


def test_the_limit_is_by_the_hour() -> None:
    held = states(s1=H)
    why = "2 automatic rollbacks within an hour, 2 are allowed: loss"
    pinned = Barrier(0, 3, 0, 0, pinned=0)
    assert answer(CORRUPT, Barrier(0, 3, 0, 0), held, [10, 20], now_us=60, limit=2) == ServePinned(1, why)
    assert answer(CORRUPT, pinned, held, [10, 20], now_us=60, limit=2) == ServePinned(0, why)
    served = replace(pinned, serves_pinned=True)
    assert answer(CORRUPT, served, held, [10, 20], now_us=60, limit=2) == Alarm(why)
    assert answer(CORRUPT, Barrier(0, 3, 0, 0), {}, [10, 20], now_us=60, limit=2) == Alarm(why)
    later = 3_600_000_000 + 15
    assert answer(CORRUPT, Barrier(0, 3, 0, 0), held, [10, 20], now_us=later, limit=2) == RollBack(1)
    assert isinstance(answer(CORRUPT, Barrier(0, 3, 0, 0), held, [], now_us=60, limit=0), Alarm)


class Scene:
    """A manager that leads, regions that are complete, a monitor that proposes."""

    def __init__(self, world: World, limit: int = 3) -> None:
        self.world, self.now_s = world, 1000.0
        self.settings = ManagerSettings(epoch_interval_s=10, healthy_after_s=5, rollbacks_an_hour=limit)
        self.connect(world.connect())
        self.bound = 0

    def connect(self, cluster: Cluster) -> None:
        self.manager = ModelManager(cluster, self.world.codec, self.world.model, self.settings, lambda: 0)

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.now_s += 0.5
            self.manager.step(self.now_s, {"east": complete_at(self.world, 10**6, bound=self.bound)})

    def propose(self, verdict: Verdict, since_s: float) -> None:
        signal = to_signal(self.world.model.name, Judgement(verdict, since_s, "loss"))
        self.world.write(Partition(topics.signals(self.world.model.name), 0), encode(signal))

    def verdicts(self) -> dict[int, Verdict]:
        found = read_states(self.world.cluster, self.world.codec, self.world.model)
        return {epoch: state.verdict for epoch, state in found.items()}


def test_a_corrupt_model_is_rolled_back_unattended(memory: World) -> None:
    scene = Scene(memory)
    scene.run(22)
    assert scene.verdicts() == {1: H, 2: H, 3: C}
    scene.propose(S, scene.now_s - 1)
    scene.run(1)
    assert scene.verdicts()[3] is S
    for _ in range(3):  # the monitor repeats itself
        scene.propose(Verdict.CORRUPT, scene.now_s - 2)
        scene.run(1)
    memory.settle()
    barriers = memory.barriers()[0]
    assert [(barrier.epoch, barrier.voids) for barrier in barriers[3:]] == [(4, (EpochRange(2, 3),))]


def test_after_the_last_rollback_the_pinned_state_is_served_until_a_person_says_otherwise(
    memory: World, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(memory, limit=1)
    scene.run(42)
    scene.propose(Verdict.CORRUPT, scene.now_s - 1)
    scene.run(1)
    scene.run(10)
    for _ in range(2):  # the monitor repeats itself
        scene.propose(Verdict.CORRUPT, scene.now_s - 1)
        scene.run(1)
    barrier = memory.barriers()[0][-1]
    returned = barrier.voids[-1].first
    assert barrier.generation == 1
    assert barrier.served is not None
    assert barrier.served < returned  # the state that went bad again is no state to serve
    assert "needs a person" in caplog.text
    before = {epoch for epoch, verdict in scene.verdicts().items() if verdict is H}
    scene.propose(Verdict.HEALTHY, 0)  # what readers see now says nothing about the live rows
    scene.run(30)
    assert {epoch for epoch, verdict in scene.verdicts().items() if verdict is H} == before
    assert "is served in place" in scene.manager.alarm
    metrics.show(scene.manager, scene.now_s)
    for gauge in ("serves_pinned", "needs_a_person", "leads"):  # what the alerts ask for
        assert REGISTRY.get_sample_value(f"ekko_manager_{gauge}", {"model": memory.model.name}) == 1
    successor = Scene(memory, limit=1)  # knows it from the barrier
    successor.now_s = scene.now_s
    successor.run(30)
    assert "is served in place" in successor.manager.alarm
    assert [epoch for epoch, state in memory.states().items() if state.pinned] == [barrier.served]
    assert memory.barriers()[0][-1].served == barrier.served
    actions = [entry.action for entry in read_audit(memory.cluster, memory.codec, memory.model)]
    assert actions == ["rollback", "serve pinned"]


@pytest.mark.parametrize("reason", ["limit", "bound"])
def test_what_policy_forbids_is_left_to_a_person(memory: World, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(memory, limit=0 if reason == "limit" else 3)
    scene.run(22)
    scene.bound = 3
    scene.propose(Verdict.CORRUPT, scene.now_s - 1)
    scene.run(1)
    assert "needs a person" in caplog.text
    assert scene.manager.alarm
    scene.propose(Verdict.HEALTHY, 0)
    scene.run(1)
    assert not scene.manager.alarm
    assert memory.barriers()[0][-1].voids == ()


def test_a_takeover_remembers_the_rollbacks_of_its_predecessor(memory: World) -> None:
    scene = Scene(memory, limit=1)
    scene.run(22)
    scene.propose(Verdict.CORRUPT, scene.now_s - 1)
    scene.run(1)
    scene.manager.close()
    successor = Scene(memory, limit=1)
    successor.now_s = scene.now_s
    successor.run(30)
    successor.propose(Verdict.CORRUPT, successor.now_s - 1)
    successor.run(1)
    successor.manager.close()
    memory.settle()
    assert memory.barriers()[0][-1].generation == 1
    entry, served = read_audit(memory.cluster, memory.codec, memory.model)
    assert served.action == "serve pinned"
    assert (entry.actor, entry.reason, entry.details["to"]) == ("state manager", "loss", "2")


class RefusedRollbacks(Faults):
    """So many transactions are refused, once it is set."""

    left = 0

    def transaction(self) -> Fate:
        self.left -= 1
        return Fate.REFUSED if self.left >= 0 else Fate.DONE


def test_a_rollback_that_was_not_written_is_none_of_the_hours(memory: World) -> None:
    scene, faults = Scene(memory, limit=2), RefusedRollbacks()
    scene.connect(faulty(memory, faults))
    scene.run(27)
    assert set(scene.verdicts().values()) == {H}, "no state is written before the barrier is"
    faults.left, since_s = 4, scene.now_s - 1
    for _ in range(8):  # the monitor repeats itself
        scene.propose(Verdict.CORRUPT, since_s)
        scene.run(2)
    assert faults.left < 0
    barrier = memory.barriers()[0][-1]
    assert (barrier.generation, barrier.serves_pinned) == (1, False)
