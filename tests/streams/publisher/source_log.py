"""What the tests of the publisher share: a model, faults, and the source log read by nothing of the publisher's."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.log import Cluster, Output, Partition, read_all
from ekko.streams.memory.log import Fate, Faults
from ekko.streams.publisher import Publisher
from tests.streams.visible import await_visible
from tests.waiting import PATIENCE_S

USERS, WIDE = TableDeclaration("users", dim=4), TableDeclaration("wide", dim=64)
STEP = 2.0**-24


def apply(cluster: Cluster, model: ModelDeclaration) -> None:
    declare(cluster, Declarations(models=(model,)), lambda region: pytest.fail(f"connects to {region}"))


def blocks_in(cluster: Cluster, model: str) -> list[DeltaBlock]:
    """Every delta block in the source log, read by nothing of the publisher's."""
    codec, found = Codec(), []
    await_visible(cluster, topics.deltas(model))
    for record in read_all(cluster, topics.deltas(model)):
        message = codec.decode(record.value)
        if isinstance(message, DeltaBlock):
            assert message.shard == record.partition.number
            found.append(message)
    return found


def rows_in(blocks: list[DeltaBlock]) -> dict[int, list[int]]:
    """The sum of all deltas a key."""
    rows: dict[int, np.ndarray] = {}
    for block in blocks:
        for key, delta in zip(block.keys.tolist(), block.deltas.astype(np.int64), strict=True):
            rows[key] = rows.get(key, 0) + delta
    return {key: row.tolist() for key, row in rows.items() if row.any()}


def ones(count: int, dim: int = 4) -> np.ndarray:
    return np.full((count, dim), STEP)


def publish_until(publisher: Publisher, expected: Callable[[Exception], bool]) -> None:
    """Publish till it raises what is expected; what comes before (on Kafka, the missing topic) is passed over."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            publisher.publish("users", [1], ones(1))
        except Exception as error:  # noqa: BLE001 - looked at here
            if expected(error):
                return
        time.sleep(0.02)
    pytest.fail("the expected error did not come")


class Stuck(Faults):
    """Nothing leaves the queue while `stuck`."""

    stuck = True

    def held_back(self) -> bool:
        return self.stuck

    def reachable(self) -> bool:
        return True


class Uncertain(Faults):
    """The next `count` records have an unknown fate: not written, or written without an answer."""

    def __init__(self, *fates: Fate) -> None:
        self.fates = list(fates)

    def delivery(self) -> Fate:
        return self.fates.pop(0) if self.fates else Fate.DONE

    def transaction(self) -> Fate:
        return self.delivery()


def roll_back(cluster: Cluster, publisher: Publisher, generation: int) -> None:
    """What the state manager writes at a rollback, as far as a publisher looks at it."""
    barrier = Barrier(publisher.model.incarnation or 0, generation, generation, 0, voids=(EpochRange(0, 0),))
    partition = Partition(topics.control(publisher.model.name), 0)
    writer = cluster.writer()
    writer.send(Output(partition, encode(barrier), b"control"))
    assert writer.flush(120) == 0
    writer.close()
