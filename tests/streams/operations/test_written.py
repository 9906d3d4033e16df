"""An operation is done only if what it has written counts, whatever the control topic can tell at that moment."""

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import IMPORT_PREFIX
from ekko.schemas.errors import CommitUncertain, NotReady, RolledBack
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Output, Partition
from ekko.streams.manager.barriers import rolling_back
from ekko.streams.manager.history import read_control, source_partitions
from ekko.streams.memory.faults import Fate, Faults
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.operations.imported import RowsImport
from ekko.streams.operations.rows_writer import Target
from tests.simulation.truth import Truth
from tests.streams.operations.test_operations import Nth
from tests.streams.operations.world import MODEL, World

TABLE = MODEL.tables[0]
IDENTITY = f"{IMPORT_PREFIX}a/1"


def hang(world: World, *partitions: Partition) -> None:
    """Somebody's transaction stays open there: what comes after it cannot be read until it is aborted."""
    writer = MemoryCluster(world.broker, Nth(1, Fate.HANGING)).transactional_writer("somebody")
    with pytest.raises(CommitUncertain):
        writer.transact([Output(partition, b"noise") for partition in partitions])


def publish(operation: RowsImport, world: World, number: int) -> None:
    keys = np.arange(10 * number, 10 * number + 10, dtype=np.uint64)
    operation.publish(number, keys, world.rng.integers(1, 9, (10, TABLE.dim)).astype(np.int32))


def started(world: World) -> RowsImport:
    world.barrier()
    operation = RowsImport(Target(world.cluster, world.catalogue, world.model), TABLE, IDENTITY, 1)
    publish(operation, world, 1)
    return operation


def chunks(world: World) -> set[str | None]:
    """Chunks of the import that count, by an independent reading."""
    return {e.block.operation for e in Truth(world.broker, "ctr").accepted if e.block.purpose is Purpose.IMPORT}


def test_the_end_is_told_without_a_barrier_after_it() -> None:
    world = World(3)
    operation = started(world)
    publish(operation, world, 2)
    operation.check_generation()
    assert chunks(world) == {f"{IDENTITY}/1", f"{IDENTITY}/2"}
    operation.close()


def test_a_rollback_before_the_last_chunk_shows_though_the_control_topic_hides_it() -> None:
    world = World(3)
    operation = started(world)
    hang(world, Partition(topics.control("ctr"), 0))
    world.barrier(rolling_back(1))
    publish(operation, world, 2)
    control = read_control(world.cluster, SharedCatalogue(world.cluster), world.model)
    assert control is not None
    assert control.generation == 0, "nothing is to be seen of the rollback"
    assert f"{IDENTITY}/2" not in chunks(world), "the last chunk is rejected"
    with pytest.raises(RolledBack, match="was rolled back while import/a/1 ran"):
        operation.check_generation()
    operation.close()


def test_a_transaction_before_the_last_chunk_is_waited_for_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3)
    operation = started(world)
    hang(world, *source_partitions(world.model))
    publish(operation, world, 2)
    clock, now_s = world.broker.clock, world.broker.clock()
    monkeypatch.setattr(world.broker, "clock", lambda: now_s)
    with pytest.raises(NotReady, match=r"cannot be told: .* shards \[.*\] was not read") as caught:
        operation.check_generation()
    assert "run it again" in caught.value.hint
    monkeypatch.setattr(world.broker, "clock", clock)  # time passes, and the transaction is aborted
    operation.check_generation()
    operation.close()


def test_a_reinstatement_behind_a_hidden_rollback_is_not_done() -> None:
    world = World(5)
    world.publish()
    world.barrier()
    world.publish()
    world.barrier(rolling_back(1))

    class Manager(Faults):
        """Before the rows are written the model is rolled back, and the control topic does not show it."""

        begun = 0

        def interrupt(self, moment: str) -> None:
            self.begun += moment == "begin"
            if moment == "begin" and self.begun == 2:
                hang(world, Partition(topics.control("ctr"), 0))
                world.barrier(rolling_back(2))

    with pytest.raises(RolledBack, match="while reinstate/1-1 ran"):
        world.run(world.reinstatement(Truth(world.broker, "ctr").voids[0]), Manager())
