"""A model on the twin, two trainers, barriers and operations on demand, judged by an independent reading of the log."""

import itertools
from typing import TYPE_CHECKING

import numpy as np

from ekko.schemas.blocks import Purpose
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import RolledBack
from ekko.schemas.quantize import Int32s
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.manager.barriers import Amendment
from ekko.streams.manager.history import read_states
from ekko.streams.manager.tenure import Tenure
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Faults
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.operations.expiry import RowsExpiry
from ekko.streams.operations.operation import Collector, Operation, Operator, Outcome
from ekko.streams.operations.reinstate import Reinstatement, reinstatement_name
from ekko.streams.operations.retract import Retraction
from ekko.streams.operations.rows_writer import Target
from ekko.streams.publisher import Publisher
from tests.simulation.truth import Truth

if TYPE_CHECKING:
    from ekko.streams.log import Cluster

MODEL = ModelDeclaration("ctr", shards=3, tables=(TableDeclaration("a", 2), TableDeclaration("b", 5)))

NONE = EpochRange(0, -1)


class Killed(BaseException):
    """Of a process, in the middle of something."""


class DiesAt(Faults):
    """A process that is killed before it begins its n-th transaction."""

    def __init__(self, number: int) -> None:
        self.left = number

    def interrupt(self, moment: str) -> None:
        self.left -= moment == "begin"
        if not self.left:
            raise Killed


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

    def publish(self, batches: int = 4, spread: int = 30) -> None:
        """Batches of both trainers; the keys of one lie within `spread` of each other."""
        for _ in range(batches):
            for publisher in self.trainers.values():
                table = MODEL.tables[self.rng.integers(2)]
                keys = self.rng.integers(0, 31 - spread) + self.rng.integers(0, spread, 8)
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
        return self.operation(Purpose.REINSTATE, reinstatement_name(void), void.first, Reinstatement, void)

    def expire(self, table: TableDeclaration, idle_since: int, faults: Faults | None = None) -> int:
        """Expire rows into which nothing has arrived since; the number of rows. Takes two barriers."""
        cluster = MemoryCluster(self.broker, faults)
        catalogue = SharedCatalogue(cluster)
        catalogue.refresh(1)
        expiry = RowsExpiry(Target(cluster, catalogue, self.model), table, idle_since, 1)
        try:
            while self.tenure.barrier.epoch < expiry.name.state:
                self.barrier()
            rows = self.rows(before=expiry.name.state)[table.name]
            keys = np.flatnonzero(self.idle(table, expiry.name.idle_since) & rows.any(axis=1)).astype(np.uint64)
            return sum(
                expiry.publish(number, some, -rows[some.astype(int)])
                for number, some in enumerate(np.array_split(keys, 2), start=1)
            )
        finally:
            expiry.close()

    def idle(self, table: TableDeclaration, since: int) -> np.ndarray:
        """Which keys nothing has arrived of since."""
        idle = np.ones(30, np.bool_)
        for entry in Truth(self.broker, "ctr").accepted:
            if entry.block.table == table.name and entry.arrival >= since:
                idle[entry.block.keys.astype(int)] = False
        return idle

    def run(self, operation: Operation, faults: Faults | None = None) -> Outcome:
        cluster = MemoryCluster(self.broker, faults)
        return Operator(cluster, SharedCatalogue(cluster), self.model).run(operation)


def same(one: dict[str, Int32s], other: dict[str, Int32s]) -> bool:
    return all(np.array_equal(one[table], other[table]) for table in one)
