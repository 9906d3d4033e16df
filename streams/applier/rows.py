"""Rows of many lane blocks, united for the store: few calls for each table and pair of epochs. Pure."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ekko.schemas.blocks import LaneBlock
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s

_VALUES_AT_ONCE = 1 << 18
"""One MiB of deltas, which stays in the second-level cache. Small blocks are paid in numpy calls, large unions in cache
misses: 256 rows of dim 64 cost 0.52 µs of processor time a row alone, 0.36 united so far, 0.64 united without limit."""


class LaneRows(NamedTuple):
    """Deltas of one table and pair of epochs; keys may repeat, the store sums them.

    `arrival` is the newest in which something of them arrived: a row is not idle before it. `keys` is uint64[N],
    `deltas` int32[N, dim].
    """

    table: str
    arrival: int
    effective: int
    keys: UInt64s
    deltas: Int32s


def merge(blocks: Iterable[LaneBlock]) -> list[LaneRows]:
    """All rows of `blocks` (any shards, both lanes), united; markers have none."""
    groups: dict[tuple[str, int, int], list[LaneBlock]] = {}
    for block in blocks:
        if len(block.keys):
            arrival = block.arrival if block.newest_arrival is None else block.newest_arrival
            groups.setdefault((block.table, arrival, block.effective), []).append(block)
    return [LaneRows(*group, *_columns(run)) for group, members in groups.items() for run in _runs(members)]


def _runs(blocks: list[LaneBlock]) -> Iterator[list[LaneBlock]]:
    run: list[LaneBlock] = []
    values = 0
    for block in blocks:
        if run and values + block.deltas.size > _VALUES_AT_ONCE:
            yield run
            run, values = [], 0
        run.append(block)
        values += block.deltas.size
    yield run


def _columns(blocks: list[LaneBlock]) -> tuple[UInt64s, Int32s]:
    if len(blocks) == 1:  # handed on as it is, uncopied
        return blocks[0].keys, blocks[0].deltas
    return np.concatenate([block.keys for block in blocks]), np.concatenate([block.deltas for block in blocks])
