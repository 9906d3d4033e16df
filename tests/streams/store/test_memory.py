"""`ekko store` at its memory bound, on the real broker: it refuses by name, stays up, and loses nothing."""

import numpy as np
import psutil

from ekko.schemas.blocks import Lane
from ekko.storage.engine.arena import row_bytes
from ekko.storage.engine.journal import ENTRY_BYTES
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store.conftest import Start
from tests.streams.store.test_store_process import caught_up, floats, served
from tests.streams.store_child import StoreChild

MIB = 1 << 20
MEMORY = 16 * MIB
ROWS_A_BLOCK = 5_000


def load(lanes: Lanes, first: int, blocks: int) -> None:
    """New keys in both lanes and shards, a barrier now and then."""
    keys = {shard: lanes.keys(shard, ROWS_A_BLOCK * (first + blocks)) for shard in (0, 1)}
    for number in range(first, first + blocks):
        some = slice(number * ROWS_A_BLOCK, (number + 1) * ROWS_A_BLOCK)
        lane = Lane.EXPRESS if number % 3 else Lane.BULK
        deltas = np.full((ROWS_A_BLOCK, 4), number + 1, np.int32)
        lanes.write(*(lanes.rows_block(lane, shard, keys[shard][some], deltas) for shard in (0, 1)))
        if number % 5 == 4:
            lanes.mark(lanes.barrier())


def resident(child: StoreChild) -> int:
    return psutil.Process(child.process.pid).memory_info().rss


def test_at_its_memory_bound_it_refuses_stays_up_and_loses_nothing(lanes: Lanes, start: Start) -> None:
    small = start("--memory", "16MiB")
    small.wait_ready(lanes.model.name)
    load(lanes, 0, 2)
    small.wait("the first rows", lambda: caught_up(small, lanes))
    before, first = resident(small), served(small, lanes)
    rows = MEMORY // (row_bytes(4) + ENTRY_BYTES + 16)
    load(lanes, 2, 2 * rows // (2 * ROWS_A_BLOCK))

    def refuses() -> bool:
        status, health = small.get("/health")
        return status == 503 and any("bytes are in use" in problem for problem in health["problems"])

    small.wait("a refusal", refuses)
    _, health = small.get("/health")
    assert any(f"of {MEMORY} bytes are in use" in problem for problem in health["problems"])
    assert set(health["halted"]) == {f"{lanes.model.name}/{shard}" for shard in (0, 1)}
    assert resident(small) - before < 4 * MEMORY, "nothing is held beyond what is stated and what reading takes"
    now = served(small, lanes)
    assert now.items() >= first.items(), "rows that were applied are still served"
    assert small.end() == 0

    large = start("--memory", "256MiB")
    large.wait_ready(lanes.model.name)
    large.wait("all is applied", lambda: caught_up(large, lanes))
    assert large.get("/health")[0] == 200
    assert served(large, lanes) == floats(lanes.truth())
