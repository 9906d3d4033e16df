"""One model's barriers on the twin and on a real broker: fencing, takeover, what died in between."""

import pytest

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, Verdict
from ekko.schemas.errors import CommitUncertain, Fenced, GapError, TransactionAborted
from ekko.streams.log import Cluster, Output, Partition, TopicSpec, read_all
from ekko.streams.manager.barriers import following, rolling_back
from ekko.streams.manager.history import CONTROL_KEY, read_control, read_history, read_states, source_partitions
from ekko.streams.manager.model import ModelManager
from ekko.streams.manager.retention import CALENDAR_DAYS, TIERS
from ekko.streams.manager.rollback import Region
from ekko.streams.manager.settings import ManagerSettings
from ekko.streams.manager.tenure import Tenure
from ekko.streams.memory.faults import Fate, Faults

from .conftest import World, complete_at, faulty

SETTINGS = ManagerSettings(epoch_interval_s=10, healthy_after_s=30)


def manager(world: World, cluster: Cluster | None = None, model: ModelDeclaration | None = None) -> ModelManager:
    return ModelManager(cluster or world.connect(), world.codec, model or world.model, SETTINGS, lambda: 5)


def test_every_shard_gets_every_barrier_and_the_state_holds_its_offsets(world: World) -> None:
    world.write(Partition(topics.deltas(world.model.name), 1), b"anything at all")
    one = manager(world)
    for now_s in (1000.0, 1000.0, 1009.0, 1010.0, 1020.0):
        one.step(now_s, {})
    one.close()
    assert world.epochs() == [[1, 2, 3]] * 3
    states = world.states()
    assert list(states) == [1, 2, 3]
    for record in read_all(world.cluster, topics.deltas(world.model.name)):
        message = world.codec.decode(record.value) if record.value and record.value[:2] == b"EK" else None
        if isinstance(message, Barrier):
            assert states[message.epoch].offsets[record.partition.number] == record.offset
            assert message.catalogue_end == 5
    assert read_control(world.cluster, world.codec, world.model) == world.barriers()[0][-1]


def test_the_newest_holder_fences_the_older_one(world: World) -> None:
    old = Tenure(world.connect(), world.codec, world.model, 0)
    old.write_barrier(0, 1)
    new = Tenure(world.connect(), world.codec, world.model, 2)
    with pytest.raises(Fenced):
        old.write_barrier(0, 3)
    assert new.write_barrier(0, 4).epoch == 2
    old.close()
    new.close()
    assert world.epochs() == [[1, 2]] * 3


def test_a_standby_waits_for_silence_and_the_fenced_one_stands_by(world: World) -> None:
    first, second = manager(world), manager(world)
    first.step(1000, {})
    first.step(1000, {})
    assert not second.step(1001, {})
    assert not second.step(1014.9, {})
    assert second.step(1015.1, {})
    second.step(1015.2, {})
    first.step(1015.3, {})  # it was paused, not dead
    assert first.tenure is None
    first.step(1030.0, {})
    assert first.tenure is None
    first.close()
    second.close()
    assert world.epochs() == [[1, 2]] * 3


def test_a_state_that_died_with_its_manager_is_published_by_the_next(world: World) -> None:
    """The old manager was killed between the barriers and the state record; a rollback, so the verdicts are due too."""
    tenure = Tenure(world.connect(), world.codec, world.model, 0)
    for now_s in (1, 2):
        tenure.write_barrier(0, now_s)
    barrier = following(tenure.barrier, 0, 3_000_000, rolling_back(1))
    outputs = [Output(partition, encode(barrier)) for partition in source_partitions(world.model)]
    outputs.append(Output(Partition(topics.control(world.model.name), 0), encode(barrier), CONTROL_KEY))
    offsets = tenure._writer.transact(outputs)
    tenure.close()
    new = Tenure(world.connect(), world.codec, world.model, 5)
    assert new.barrier == barrier
    assert new.write_barrier(0, 6).epoch == 4
    new.close()
    states = world.states()
    assert states[3].offsets == tuple(offsets[:3])
    assert (states[3].generation, states[3].written_us) == (1, 3_000_000)
    assert states[1].verdict is Verdict.CANDIDATE
    assert states[2].verdict is Verdict.CORRUPT
    assert world.barriers()[0][-1].voids == (EpochRange(1, 2),)


def test_another_incarnation_begins_anew(world: World) -> None:
    Tenure(world.connect(), world.codec, world.model, 0).write_barrier(0, 1)
    reborn = ModelDeclaration(world.model.name, shards=3, incarnation=999)
    assert Tenure(world.connect(), world.codec, reborn, 0).write_barrier(0, 2).epoch == 1


def test_candidates_become_healthy(world: World) -> None:
    one = manager(world)
    for now_s in (1000, 1000, 1001, 1031):
        one.step(now_s, {"east": complete_at(world, 1), "west": complete_at(world, 1)})
    one.close()
    assert world.states()[1].verdict is Verdict.HEALTHY


def test_lost_control_records_are_noticed(memory: World) -> None:
    Tenure(memory.cluster, memory.codec, memory.model, 0).write_barrier(0, 1)
    memory.cluster.delete_topics([topics.control(memory.model.name)])
    memory.cluster.create_topics([TopicSpec(topics.control(memory.model.name), 1)])
    with pytest.raises(GapError, match="ends at nothing"):
        read_history(memory.cluster, memory.codec, memory.model)


def test_shards_that_disagree_are_noticed(memory: World) -> None:
    tenure = Tenure(memory.cluster, memory.codec, memory.model, 0)
    barrier = following(tenure.barrier, 0, 0)
    outputs = [Output(partition, encode(barrier)) for partition in source_partitions(memory.model)]
    outputs[1] = Output(outputs[1].partition, encode(following(tenure.barrier, 0, 1)))
    outputs.append(Output(Partition(topics.control(memory.model.name), 0), encode(barrier), CONTROL_KEY))
    tenure._writer.transact(outputs)
    with pytest.raises(GapError, match="shards 0 and 1"):
        Tenure(memory.cluster, memory.codec, memory.model, 0)


def test_old_states_are_withdrawn_and_at_last_forgotten(memory: World) -> None:
    settings = ManagerSettings(epoch_interval_s=300, healthy_after_s=30)
    one = ModelManager(memory.connect(), memory.codec, memory.model, settings, lambda: 5)
    times_s = [1_000.0 + 900 * number for number in range(200)]  # three days in all; the last one in steps of 300 s
    times_s += [times_s[-1] + 300 * number for number in range(1, 301)]
    for now_s in times_s:
        one.step(now_s, {})
    one.close()
    written_s = {barrier.epoch: barrier.written_us / 1e6 for barrier in memory.barriers()[0]}
    withdrawn = memory.barriers()[0][-1].withdrawn
    states = memory.states()
    assert {epoch for epoch, state in states.items() if state.verdict is Verdict.WITHDRAWN} == {
        epoch for epoch in states if any(epoch in run for run in withdrawn)
    }
    assert 0 in withdrawn[0]
    tier_s = TIERS[-1].age_s
    assert set(written_s) - set(states) > set(range(3, 90)), "without a record: forgotten"
    assert set(states) == first_of_days(written_s) | {
        epoch for epoch, at_s in written_s.items() if now_s - at_s < tier_s
    }
    assert {states[epoch].verdict for epoch in written_s.keys() & states if now_s - written_s[epoch] >= tier_s} == {
        Verdict.WITHDRAWN
    }
    assert len([state for state in states.values() if state.verdict is Verdict.CANDIDATE]) < 100

    for day in (2, 4):  # when all that was written before this day is beyond the calendar's bound
        later = ModelManager(memory.connect(), memory.codec, memory.model, settings, lambda: 5)
        for _ in range(2):
            later.step(86_400.0 * (day + CALENDAR_DAYS), {})
        later.close()
        newest = memory.barriers()[0][-1].epoch
        left = {epoch for epoch in first_of_days(written_s) if written_s[epoch] > 86_400 * day}
        assert len(left) == max(0, 4 - day)
        states = memory.states()
        assert {epoch for epoch in states if epoch in written_s} == left
        assert {states[epoch].verdict for epoch in left} <= {Verdict.WITHDRAWN}
        assert states[newest].verdict is Verdict.CANDIDATE


def first_of_days(written_s: dict[int, float]) -> set[int]:
    """The first state of each day: the calendar by which expiry knows how old an epoch is."""
    days = {int(at_s // 86_400) for at_s in written_s.values()}
    return {min(epoch for epoch, at_s in written_s.items() if at_s // 86_400 == day) for day in days}


class Once(Faults):
    """One transaction, by number, has this fate."""

    def __init__(self, number: int, fate: Fate) -> None:
        self.left, self.fate = number, fate

    def transaction(self) -> Fate:
        self.left -= 1
        return self.fate if self.left == 0 else Fate.DONE


@pytest.mark.parametrize("number", [1, 2])
def test_an_aborted_transaction_is_the_barriers_or_that_of_the_states_behind_it(memory: World, number: int) -> None:
    tenure = Tenure(faulty(memory, Once(number, Fate.REFUSED)), memory.codec, memory.model, 1000.0)
    with pytest.raises(TransactionAborted):
        tenure.write_barrier(1, 1001.0)
    assert tenure.barrier.epoch == number - 1, "the barrier that is there"
    assert tenure.states == {}
    assert tenure.write_barrier(1, 1002.0).epoch == number
    tenure.close()
    assert memory.epochs() == [list(range(1, number + 1))] * 3
    assert sorted(memory.states()) == list(range(1, number + 1))


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REPLY_LOST, Fate.HANGING])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_whatever_becomes_of_a_transaction_epochs_are_contiguous(memory: World, fate: Fate, number: int) -> None:
    one = manager(memory, faulty(memory, Once(number, fate)))
    for second in range(0, 60, 2):
        one.step(1000.0 + second, {"east": complete_at(memory, 9)})
    one.close()
    epochs = memory.epochs()
    assert epochs[0] == list(range(1, len(epochs[0]) + 1))
    assert len(epochs[0]) >= 5
    assert epochs == [epochs[0]] * 3
    states = memory.states()
    assert list(states) == epochs[0]
    assert states[1].verdict is Verdict.HEALTHY


class Killed(BaseException):
    """kill -9 of the simulated process."""


class KillAt(Faults):
    """Dies at the n-th moment."""

    def __init__(self, number: int) -> None:
        self.left = number

    def interrupt(self, moment: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed(moment)


def test_killed_at_any_moment_no_shard_has_another_epoch_void_or_generation(memory: World) -> None:
    now_s, kills = 1000.0, 0
    for moment in range(1, 120):
        try:
            tenure = Tenure(faulty(memory, KillAt(moment % 40 + 1)), memory.codec, memory.model, now_s)
            tenure.write_barrier(0, now_s)
            to = max(0, tenure.barrier.epoch - 3)
            tenure.write_barrier(0, now_s, rolling_back(to) if moment % 3 == 0 else None)
        except Killed:
            kills += 1
        except CommitUncertain:
            pytest.fail("a killed process sees nothing")
        now_s += 10
        shards = memory.barriers()
        assert shards == [shards[0]] * 3
        assert [barrier.epoch for barrier in shards[0]] == list(range(1, len(shards[0]) + 1))
    assert kills > 40
    last = Tenure(memory.cluster, memory.codec, memory.model, now_s)
    assert list(last.states) == list(range(1, last.barrier.epoch + 1))
    assert last.barrier.generation == len(last.barrier.voids) > 0


def test_nobody_waits_for_a_region_that_is_still_being_made(memory: World) -> None:
    one = manager(memory)
    regions = {"east": complete_at(memory, 1), "new": Region(9, (), seeded=True), "bare": Region(8, ())}
    for now_s in (1000.0, 1001.0, 1040.0):
        one.step(now_s, regions)
    assert read_states(memory.cluster, memory.codec, memory.model)[1].verdict is Verdict.CANDIDATE, (
        "a region that is declared bare is waited for"
    )
    del regions["bare"]
    for now_s in (1041.0, 1080.0):
        one.step(now_s, regions)
    one.close()
    assert memory.states()[1].verdict is Verdict.HEALTHY
