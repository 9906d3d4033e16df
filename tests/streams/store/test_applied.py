"""Latencies that are told: only of blocks whose time of publishing can be believed."""

import numpy as np
import pytest

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.epochs import Settled
from ekko.streams.applier.applied import Applied, tell

NOW_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000


class Told:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.rows = 0
        self.latencies_ms: list[float] = []

    def applied(self, lane: Lane, rows: int, latencies_ms: list[float], *, recovering: bool) -> None:
        assert lane is Lane.BULK
        assert not recovering
        self.rows += rows
        self.latencies_ms += latencies_ms


@pytest.mark.parametrize(
    ("published_us", "latencies_ms"),
    [
        (NOW_US - 3_000, [3.0]),
        (NOW_US + 3_000, [0.0]),
        (NOW_US - DAY_US, [86_400_000.0]),
        (0, []),
        (-(2**62), []),
        (1, []),
        (NOW_US - DAY_US - 1, []),
        (NOW_US + DAY_US + 1, []),
        (2**62, []),
    ],
)
def test_an_unbelievable_time_of_publishing_is_no_latency(published_us: int, latencies_ms: list[float]) -> None:
    keys, deltas = np.array([1, 2], np.uint64), np.ones((2, 1), np.int32)
    block = LaneBlock(
        1, 1, 0, 1, 0, 0, 0, 0, Settled(0, 0, 0), 1, table="t", keys=keys, deltas=deltas, published_us=published_us
    )
    told = Told()
    tell(told, [Applied(Lane.BULK, block, recovering=False)], NOW_US)
    assert told.latencies_ms == latencies_ms
    assert told.rows == 2
