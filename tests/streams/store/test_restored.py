"""CASES 54: a base and the deltas since make the live store, bit for bit.

One delta that is missing, double or out of order is refused by name.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.blocks import Lane
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import GapError
from ekko.streams.log import Output
from tests.streams.lanes_by_hand import Lanes, Replica
from tests.streams.store.conftest import Open

Restore = Callable[[], Replica]


@pytest.fixture
def based(lanes: Lanes, open_replica: Open, tmp_path: Path) -> Iterator[tuple[Replica, Restore]]:
    """A live replica with a base taken from it, and what opens a restored one on a copy of that."""
    rng = np.random.default_rng(5)
    for _ in range(6):
        lanes.send(rng.choice([Lane.EXPRESS, Lane.BULK]), int(rng.integers(2)), value=int(rng.integers(100)))
    lanes.mark(lanes.barrier())
    live = open_replica()
    live.settle(flush=True)
    base = tmp_path / "base"
    live.store.checkpoint(base)
    restored: list[Replica] = []

    def restore() -> Replica:
        folder = tmp_path / f"restored-{len(restored)}"
        shutil.copytree(base, folder)
        restored.append(Replica(lanes, folder))
        return restored[-1]

    yield live, restore
    for replica in restored:
        replica.kill()


def deltas(lanes: Lanes, count: int) -> list[Output]:
    """Lane records that follow what was sent so far, not sent yet."""
    keys = lanes.keys(0, 3)
    values = itertools.count(7)
    return [
        lanes.rows_block(Lane.EXPRESS, 0, keys, np.full((3, 4), next(values), dtype=np.int32)) for _ in range(count)
    ]


def test_base_and_deltas_are_the_live_store(lanes: Lanes, based: tuple[Replica, Restore]) -> None:
    live, restore = based
    rng = np.random.default_rng(6)
    for number in range(30):
        lanes.send(rng.choice([Lane.EXPRESS, Lane.BULK]), int(rng.integers(2)), value=int(rng.integers(-100, 100)))
        if number % 10 == 4:
            lanes.mark(lanes.barrier())
    lanes.control(barrier := lanes.barrier(void=EpochRange(1, 1)))
    lanes.mark(barrier)
    restored = restore()
    for replica in (live, restored):
        replica.settle()
        assert replica.applier.halted == {}
    assert restored.rows() == live.rows() == lanes.truth()
    assert restored.applier.state == live.applier.state
    for table in ("embedding", "bias"):
        assert restored.store.checksum(table) == live.store.checksum(table)


@pytest.mark.parametrize("harm", ["dropped", "repeated", "swapped"])
def test_a_delta_that_is_missing_double_or_out_of_order_is_refused_by_name(
    lanes: Lanes, based: tuple[Replica, Restore], harm: str
) -> None:
    _, restore = based
    before = lanes.truth()
    one, two, three = deltas(lanes, 3)
    lanes.write(*{"dropped": (one, three), "repeated": (one, one, two, three), "swapped": (two, one, three)}[harm])
    restored = restore()
    restored.settle()
    error = restored.applier.halted[0]
    assert isinstance(error, GapError)
    assert f"{lanes.model.name} shard 0" in error.message
    assert "seq" in error.message
    assert restored.applier.halted.keys() == {0}, "the other shard goes on"
    first = {"dropped": 7, "repeated": 7, "swapped": 0}[harm]  # what came before the fault is applied, nothing after
    mine = lanes.keys(0, 3).tolist()
    assert {key: restored.rows()[key][0] - before[key][0] for key in mine} == dict.fromkeys(mine, first)
