"""Retract and reinstate on the twin, judged by the simulation's independent reading of the raw source log."""

import itertools

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import Purpose
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import Fenced, GapError, RolledBack
from ekko.schemas.quantize import Int32s
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Cluster, read_all
from ekko.streams.manager.barriers import Amendment, rolling_back
from ekko.streams.manager.history import read_states, source_partitions
from ekko.streams.manager.tenure import Tenure
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Fate, Faults
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.operations.operation import Collector, Operation, Operator, Outcome
from ekko.streams.operations.reinstate import Reinstatement
from ekko.streams.operations.retract import Retraction
from ekko.streams.publisher import Publisher
from tests.simulation.truth import Truth

MODEL = ModelDeclaration("ctr", shards=3, tables=(TableDeclaration("a", 2), TableDeclaration("b", 5)))

NONE = EpochRange(0, -1)


class World:
    """A model, two trainers, barriers on demand."""

    def __init__(self, seed: int) -> None:
        ticks = itertools.count(1)
        self.broker = MemoryBroker(lambda: next(ticks) / 1000, decide=lambda: True)
        self.cluster: Cluster = MemoryCluster(self.broker)
        declare(self.cluster, Declarations((), (MODEL,)), lambda _: self.cluster)
        self.rng = np.random.default_rng(seed)
        self.catalogue = SharedCatalogue(self.cluster)
        self.catalogue.refresh(1)
        self.model = self.catalogue.model("ctr")
        self.tenure = Tenure(self.cluster, Codec(), self.model, 0)
        self.trainers = {name: self.publisher(name) for name in ("good", "bad")}

    def publisher(self, trainer: str) -> Publisher:
        return Publisher("ctr", cluster=self.cluster, trainer=trainer, on_rollback=lambda _: None)

    def close(self) -> None:
        for publisher in self.trainers.values():
            publisher.close()

    def publish(self, batches: int = 4) -> None:
        for _ in range(batches):
            for publisher in self.trainers.values():
                table = MODEL.tables[self.rng.integers(2)]
                keys = self.rng.integers(0, 30, 8)
                try:
                    publisher.publish(table.name, keys, self.rng.normal(size=(8, table.dim)).astype(np.float32))
                except RolledBack:
                    continue
                publisher.flush(1)

    def barrier(self, amend: Amendment | None = None) -> None:
        self.tenure.write_barrier(self.catalogue.end, 0, amend)

    def rows(self, *, without: str = "", epochs: EpochRange = NONE, before: int = 10**6) -> dict[str, Int32s]:
        """Rows by the raw log: accepted, not void, leaving out one trainer's own learning in some epochs."""
        truth = Truth(self.broker, "ctr")
        rows = {table.name: np.zeros((30, table.dim), np.int32) for table in MODEL.tables}
        for entry in truth.accepted:
            left_out = entry.block.trainer == without and entry.effective in epochs
            if not truth.is_void(entry.effective) and entry.effective < before and not left_out:
                rows[entry.block.table][entry.block.keys.astype(int)] += entry.block.deltas
        return rows

    def operation(self, purpose: Purpose, identity: str, start: int, collector: type, *arguments: object) -> Operation:
        def make() -> Collector:
            made: Collector = collector(*arguments)
            return made

        states = read_states(self.cluster, Codec(), self.model)
        entry = AuditEntry("ctr", purpose, "me", "", 1)
        return Operation(purpose, identity, states.get(start), make, entry)

    def retraction(self, epochs: EpochRange) -> Operation:
        return self.operation(Purpose.RETRACT, "retract/bad", epochs.first, Retraction, "bad", epochs)

    def reinstatement(self, void: EpochRange) -> Operation:
        identity = f"reinstate/{void.first}"
        return self.operation(Purpose.REINSTATE, identity, void.first, Reinstatement, void, identity)

    def run(self, operation: Operation, faults: Faults | None = None) -> Outcome:
        cluster = MemoryCluster(self.broker, faults)
        return Operator(cluster, SharedCatalogue(cluster), self.model).run(operation)


class Nth(Faults):
    """The n-th transaction has this fate."""

    def __init__(self, number: int, fate: Fate) -> None:
        self.left, self.fate = number, fate

    def transaction(self) -> Fate:
        self.left -= 1
        return self.fate if self.left == 0 else Fate.DONE


def same(one: dict[str, Int32s], other: dict[str, Int32s]) -> bool:
    return all(np.array_equal(one[table], other[table]) for table in one)


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


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REPLY_LOST, Fate.HANGING])
@pytest.mark.parametrize("number", [1, 2])
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

    with pytest.raises(RolledBack, match="while reinstate/0 ran"):
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
