"""Interventions: beside a running manager, and whatever becomes of the commit."""

import pytest

from ekko.schemas import topics
from ekko.schemas.epochs import EpochRange, Verdict
from ekko.schemas.errors import CommitUncertain, Fenced, StateUnavailable
from ekko.schemas.signals import AuditEntry
from ekko.streams.log import Cluster, read_all
from ekko.streams.manager import ManagerSettings
from ekko.streams.manager.automatic import ACTOR
from ekko.streams.manager.barriers import denying, rolling_back
from ekko.streams.manager.history import read_history
from ekko.streams.manager.intervention import intervene
from ekko.streams.manager.model import ModelManager
from ekko.streams.manager.tenure import Tenure
from ekko.streams.memory.faults import Fate, Faults

from .conftest import World, faulty
from .test_model import Once


def entry(world: World, at_us: int = 5_000_000) -> AuditEntry:
    return AuditEntry(world.model.name, "rollback", "me", "because", at_us, {"to": "1"})


def audit(world: World) -> list[AuditEntry]:
    world.settle()
    found = (world.codec.decode(record.value) for record in read_all(world.cluster, topics.audit(world.model.name)))
    return [message for message in found if isinstance(message, AuditEntry)]


def test_a_running_manager_stands_back_and_returns(world: World) -> None:
    manager = ModelManager(
        world.connect(), world.codec, world.model, ManagerSettings(epoch_interval_s=10), lambda: world.catalogue().end
    )
    for now_s in (1000.0, 1001.0, 1012.0):
        manager.step(now_s, {})
    state = intervene(world.connect(), world.catalogue(), world.model, rolling_back(1), entry(world, 1_013_000_000))
    assert (state.epoch, state.generation) == (3, 1)
    manager.step(1012.5, {})
    assert world.newest() == 3
    manager.step(1022.5, {})  # fenced where its next barrier was due
    for now_s in (1022.6, 1022.9):
        manager.step(now_s, {})
        assert world.newest() == 3
    manager.step(1023.1, {})  # an epoch interval after the command's
    assert world.newest() == 4
    manager.close()
    assert world.epochs() == [[1, 2, 3, 4]] * 3
    last = world.barriers()[0][-1]
    assert (last.generation, last.voids) == (1, (EpochRange(1, 2),))
    assert last.catalogue_end == world.catalogue().end > 0
    assert world.states()[2].verdict is Verdict.CORRUPT
    assert [one.details for one in audit(world)] == [{"to": "1", "epoch": "3", "generation": "1"}]


def test_a_barrier_written_since_the_history_was_read_is_seen(world: World) -> None:
    tenure = Tenure(world.connect(), world.codec, world.model, 1000.0)
    tenure.write_barrier(0, 1000.0)
    world.settle()
    known = read_history(world.cluster, world.codec, world.model)
    other = Tenure(world.connect(), world.codec, world.model, 1001.0)
    other.write_barrier(0, 1001.0)
    opened = intervene(
        *(world.connect(), world.catalogue(), world.model, rolling_back(1), entry(world, 1_002_000_000)), known=known
    )
    assert (known.barrier.epoch, opened.epoch) == (1, 3)
    assert world.barriers()[0][-1].voids == (EpochRange(1, 2),)
    with pytest.raises(Fenced):
        other.write_barrier(0, 1003.0)
    other.close()
    tenure.close()


def test_of_two_managers_that_lost_the_tenure_to_a_command_one_goes_on(memory: World) -> None:
    first, second = (
        ModelManager(memory.connect(), memory.codec, memory.model, ManagerSettings(epoch_interval_s=10), lambda: 1)
        for _ in range(2)
    )
    first.step(1000.0, {})
    first.step(1001.0, {})
    second.step(1017.0, {})  # the first is paused
    second.step(1017.1, {})
    assert memory.newest() == 2
    intervene(memory.connect(), memory.catalogue(), memory.model, denying("bad"), entry(memory, 1_018_000_000))
    for now_s in (1027.2, 1027.3, 1028.1, 1028.2):
        first.step(now_s, {})
        second.step(now_s + 0.05, {})
    assert [manager.tenure is not None for manager in (first, second)].count(True) == 1
    assert memory.newest() == 4
    for tenths in range(10_290, 10_900):
        first.step(tenths / 10, {})
        second.step(tenths / 10 + 0.05, {})
    assert memory.newest() == 10
    first.close()
    second.close()
    assert memory.epochs() == [list(range(1, 11))] * 3


def test_another_managers_rollback_is_no_command(memory: World) -> None:
    manager = ModelManager(
        memory.connect(), memory.codec, memory.model, ManagerSettings(epoch_interval_s=10), lambda: 1
    )
    manager.step(1000.0, {})
    manager.step(1001.0, {})
    theirs = AuditEntry(memory.model.name, "rollback", ACTOR, "it was corrupt", 1_005_000_000)
    intervene(memory.connect(), memory.catalogue(), memory.model, denying("bad"), theirs)
    for now_s in (1011.5, 1011.6, 1026.4):
        manager.step(now_s, {})
        assert manager.tenure is None
    manager.close()


def test_a_refused_amendment_writes_nothing(memory: World) -> None:
    with pytest.raises(StateUnavailable):
        intervene(memory.cluster, memory.catalogue(), memory.model, rolling_back(5), entry(memory))
    assert memory.epochs() == [[]] * 3
    assert audit(memory) == []


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REPLY_LOST, Fate.HANGING])
@pytest.mark.parametrize("number", [1, 2])
def test_exactly_one_barrier_whatever_becomes_of_the_commit(memory: World, fate: Fate, number: int) -> None:
    cluster: Cluster = faulty(memory, Once(number, fate))
    state = intervene(cluster, memory.catalogue(), memory.model, denying("bad"), entry(memory))
    assert state.epoch == 1
    assert memory.epochs() == [[1]] * 3
    assert memory.barriers()[0][0].denied == ("bad",)
    assert list(memory.states()) == [1]
    assert len(audit(memory)) == 1


class Fates(Faults):
    """Of one transaction after the other; with the last of them the broker goes away, if it is to."""

    def __init__(self, *fates: Fate, then_away: bool = False) -> None:
        self.left, self.then_away = list(fates), then_away

    def transaction(self) -> Fate:
        return self.left.pop(0)

    def reachable(self) -> bool:
        return bool(self.left) or not self.then_away


def test_a_barrier_that_is_refused_every_time_is_not_written_and_is_said_not_to_be(memory: World) -> None:
    cluster: Cluster = faulty(memory, Fates(*[Fate.REFUSED] * 8))
    paused: list[float] = []
    with pytest.raises(Fenced, match="nothing was written"):
        intervene(cluster, memory.catalogue(), memory.model, denying("bad"), entry(memory), pause=paused.append)
    assert memory.epochs() == [[]] * 3
    assert len({*paused}) == 7, "two at once do not go on fencing each other in step"
    assert sum(paused) < 7


@pytest.mark.parametrize(
    ("fates", "told"),
    [
        (Fates(*[Fate.REFUSED] * 7, Fate.REPLY_LOST), "took the tenure 8 times"),
        (Fates(Fate.REPLY_LOST, then_away=True), "no broker answers"),
    ],
)
def test_one_that_nobody_could_look_for_is_not_said_to_be_missing(memory: World, fates: Fates, told: str) -> None:
    cluster: Cluster = faulty(memory, fates)
    with pytest.raises(CommitUncertain, match=f"may be written or not: .*{told}") as unknown:
        intervene(cluster, memory.catalogue(), memory.model, denying("bad"), entry(memory), pause=lambda _: None)
    assert f"`ekko states {memory.model.name}`" in unknown.value.hint
    assert memory.epochs() == [[1]] * 3, "it is there"
