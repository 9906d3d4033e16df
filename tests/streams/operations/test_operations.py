"""Retract and reinstate on the twin, judged by the simulation's independent reading of the raw source log."""

import itertools

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import CommitUncertain, Fenced, GapError, NotReady, RolledBack
from ekko.schemas.quantize import Int32s
from ekko.streams.log import Output, read_all
from ekko.streams.manager.barriers import rolling_back
from ekko.streams.manager.history import source_partitions
from ekko.streams.memory.faults import Fate, Faults
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.operations.operation import Outcome
from tests.simulation.truth import Truth
from tests.streams.operations.world import MODEL, DiesAt, Killed, World, same


class Nth(Faults):
    """The n-th transaction has this fate."""

    def __init__(self, number: int, fate: Fate) -> None:
        self.left, self.fate = number, fate

    def transaction(self) -> Fate:
        self.left -= 1
        return self.fate if self.left == 0 else Fate.DONE


@pytest.mark.parametrize("seed", range(8))
def test_a_retraction_is_as_if_the_trainer_had_never_been(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        world.publish()
        world.barrier()
    world.publish()
    world.barrier(rolling_back(int(world.rng.integers(1, 4))))
    for _ in range(2):
        world.publish()
        world.barrier()
    epochs = EpochRange(int(world.rng.integers(0, 3)), 4)
    expected = {before: world.rows(without="bad", epochs=epochs, before=before) for before in range(8)}
    assert not same(world.rows(), expected[7])
    outcome = world.run(world.retraction(epochs))
    assert outcome.rows > 0
    for before, rows in expected.items():
        assert same(world.rows(before=before), rows), f"as of {before}"
    assert world.run(world.retraction(epochs)) == Outcome(0, 0)
    assert same(world.rows(), expected[7])


def test_a_retraction_is_void_exactly_when_what_it_retracts_is() -> None:
    world = World(1)
    for _ in range(3):
        world.publish()
        world.barrier()
    untouched = world.rows(before=2)
    world.run(world.retraction(EpochRange(2, 2)))
    world.barrier(rolling_back(2))
    assert same(world.rows(), untouched)


@pytest.mark.parametrize("seed", range(8))
def test_a_reinstated_range_is_as_if_there_had_been_no_rollback(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        world.publish()
        world.barrier()
    world.publish()
    first = int(world.rng.integers(1, 4))
    world.barrier(rolling_back(first))
    void = EpochRange(first, 3)
    world.publish()
    world.run(world.retraction(EpochRange(first, 3)))  # of void epochs: nothing to do, and nothing comes of it
    truth = Truth(world.broker, "ctr")
    expected = {table.name: np.zeros((30, table.dim), np.int32) for table in MODEL.tables}
    for entry in truth.accepted:
        expected[entry.block.table][entry.block.keys.astype(int)] += entry.block.deltas
    assert not same(world.rows(), expected)
    assert world.run(world.reinstatement(void)).rows > 0
    assert same(world.rows(), expected)
    assert world.run(world.reinstatement(void)) == Outcome(0, 0)
    world.barrier()
    world.run(world.retraction(EpochRange(4, 4)))
    world.barrier(rolling_back(4))
    assert same(world.rows(), world.rows(before=first))
    assert world.run(world.reinstatement(void)).rows > 0, "what a later rollback took may be given back again"


def nested(seed: int, to: int = 3) -> tuple[World, EpochRange, EpochRange, dict[str, Int32s]]:
    """A void, reinstated, and a later one that took that back and more (back to state `to`); rows before the latter."""
    world = World(seed)
    for _ in range(2):
        world.publish()
        world.barrier()
    world.barrier(rolling_back(1))
    first = EpochRange(1, 2)
    world.publish()
    world.run(world.reinstatement(first))
    world.publish()
    expected = world.rows()
    world.barrier(rolling_back(to))
    assert not same(world.rows(), expected)
    return world, first, EpochRange(to, 3), expected


@pytest.mark.parametrize("to", [3, 0])
@pytest.mark.parametrize("order", list(itertools.product((0, 1), repeat=4)), ids=str)
def test_what_two_rollbacks_took_comes_back_once_in_whatever_order_both_are_reinstated(
    order: tuple[int, ...], to: int
) -> None:
    world, *voids, expected = nested(3, to)
    for chosen in (*order, 1 - order[-1]):
        world.run(world.reinstatement(voids[chosen]))
        world.barrier()
    assert same(world.rows(), expected)
    assert [world.run(world.reinstatement(void)) for void in voids] == [Outcome(0, 0)] * 2
    last = world.tenure.barrier.epoch
    world.barrier(rolling_back(last - 1))
    for void in (*voids, EpochRange(last - 1, last), *voids)[:: 1 if order[0] else -1]:
        world.run(world.reinstatement(void))
    assert same(world.rows(), expected)


def test_a_void_within_another_comes_back_with_it_and_is_not_taken_away_by_its_own_reinstatement() -> None:
    world, first, second, expected = nested(3, to=2)
    for void in (second, first, second):
        world.run(world.reinstatement(void))
        assert same(world.rows(), expected)
        world.barrier()


@pytest.mark.parametrize("kills", [(), (2,), (3, 3), (3, 2, 4)])
@pytest.mark.parametrize("again", range(2))
def test_what_a_reinstatement_gave_back_comes_back_once_though_both_are_killed_between_their_chunks(
    kills: tuple[int, ...], again: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekko.streams.operations.operation._CHUNK_BYTES", 100)
    world, *voids, expected = nested(4)
    for number, moment in enumerate(kills):
        with pytest.raises(Killed):
            world.run(world.reinstatement(voids[(number + again) % 2]), DiesAt(moment))
        world.barrier()
    world.run(world.reinstatement(voids[again]))
    world.run(world.reinstatement(voids[1 - again]))
    assert same(world.rows(), expected)


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REPLY_LOST, Fate.HANGING])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_whatever_becomes_of_a_transaction_everything_is_taken_back_once(
    fate: Fate, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekko.streams.operations.operation._CHUNK_BYTES", 300)
    world = World(5)
    world.publish()
    world.barrier()
    expected = world.rows(without="bad", epochs=EpochRange(0, 0))
    world.run(world.retraction(EpochRange(0, 0)), Nth(number, fate))
    assert same(world.rows(), expected)
    entries = [Codec().decode(record.value) for record in read_all(world.cluster, topics.audit("ctr"))]
    assert [entry.action for entry in entries] == ["retract"]


def test_what_anothers_open_transaction_hides_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(5)
    world.publish()
    world.barrier()
    expected = world.rows(without="bad", epochs=EpochRange(0, 0))

    class Trainers(Faults):
        """Before the retraction's rows are written somebody begins a transaction in every shard, and hangs."""

        begun = 0

        def interrupt(self, moment: str) -> None:
            self.begun += moment == "begin"
            if moment == "begin" and self.begun == 2:
                cluster = MemoryCluster(world.broker, Nth(1, Fate.HANGING))
                trainer = cluster.transactional_writer("trainer")
                with pytest.raises(CommitUncertain):
                    trainer.transact([Output(partition, b"noise") for partition in source_partitions(world.model)])

    clock, now_s = world.broker.clock, world.broker.clock()
    monkeypatch.setattr(world.broker, "clock", lambda: now_s)
    with pytest.raises(NotReady, match="everything of retract/bad is written, but"):
        world.run(world.retraction(EpochRange(0, 0)), Trainers())
    with pytest.raises(NotReady, match="was not read to"):
        world.run(world.retraction(EpochRange(0, 0)))
    monkeypatch.setattr(world.broker, "clock", clock)
    for _ in range(3_000):
        world.broker.clock()  # time passes
    assert world.run(world.retraction(EpochRange(0, 0))) == Outcome(0, 0), "what it has published itself is seen"
    assert same(world.rows(), expected)


def test_a_newer_operation_fences_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekko.streams.operations.operation._CHUNK_BYTES", 300)
    world = World(5)
    world.publish()
    world.barrier()
    expected = world.rows(without="bad", epochs=EpochRange(0, 0))

    class Intruder(Faults):
        begun = 0

        def interrupt(self, moment: str) -> None:
            self.begun += moment == "begin"
            if moment == "begin" and self.begun == 2:
                world.run(world.retraction(EpochRange(0, 0)))

    with pytest.raises(Fenced):
        world.run(world.retraction(EpochRange(0, 0)), Intruder())
    assert same(world.rows(), expected)


def test_a_rollback_in_between_is_told() -> None:
    world = World(5)
    world.publish()
    world.barrier(rolling_back(0))
    world.publish()
    before = world.rows()

    class Rollback(Faults):
        def interrupt(self, moment: str) -> None:
            if moment == "begin":
                world.barrier(rolling_back(1))

    with pytest.raises(RolledBack, match="while reinstate/0-0 ran"):
        world.run(world.reinstatement(EpochRange(0, 0)), Rollback())
    assert not same(world.rows(), before)
    assert world.rows()["a"].any() == 0, "blocks of the old generation were rejected everywhere"


def test_what_retention_has_passed_is_refused() -> None:
    world = World(5)
    world.publish()
    world.barrier()
    world.publish()
    world.barrier()
    for partition in source_partitions(world.model):
        world.broker.trim(partition, 5)
    with pytest.raises(GapError):
        world.run(world.retraction(EpochRange(0, 1)))
