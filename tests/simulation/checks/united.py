"""Sums over withdrawn states: nobody unites before it was told."""

import numpy as np
import numpy.typing as npt

from ekko.schemas.blocks import DeltaBlock, LaneBlock
from ekko.schemas.epochs import EpochRange
from tests.simulation.lanes import RegionLog
from tests.simulation.truth import Truth

Totals = dict[tuple[str, int], npt.NDArray[np.int64]]


def check_united_after_told(truth: Truth, log: RegionLog) -> None:
    """Only what the markers sent before have made one is summed. For a log in which no delta is negative."""
    for shard, sent in enumerate(log.shards):
        arrived: Totals = {}
        for accepted in truth.accepted:
            if accepted.origin[0] == shard:
                _add(truth, arrived, accepted.block, accepted.effective)
        withdrawn: tuple[EpochRange, ...] = ()
        there, gone = arrived, Totals()
        for block in (entry.block for entry in sent):
            if block.barrier is not None and block.barrier.withdrawn != withdrawn:
                withdrawn = block.barrier.withdrawn
                there, gone = _classed(arrived, withdrawn), _classed(gone, withdrawn)
            if not len(block.keys) or truth.is_void(block.effective):
                continue
            at = block.table, _label(block.effective, withdrawn)
            _add(truth, gone, block, at[1])
            assert at in there, f"shard {shard}, seq {block.seq}: {at} never arrived"
            assert (gone[at] <= there[at]).all(), (
                f"shard {shard}, seq {block.seq}: more is sent of epoch {at[1]} than belongs to it; withdrawn, as told "
                f"by then, are {withdrawn}"
            )


def _add(truth: Truth, totals: Totals, block: DeltaBlock | LaneBlock, epoch: int) -> None:
    keys = truth.keys[block.table]
    empty = np.zeros((len(keys), block.deltas.shape[1]), np.int64)
    totals.setdefault((block.table, epoch), empty)[np.searchsorted(keys, block.keys)] += block.deltas


def _classed(totals: Totals, withdrawn: tuple[EpochRange, ...]) -> Totals:
    found: Totals = {}
    for (table, epoch), rows in totals.items():
        at = table, _label(epoch, withdrawn)
        found[at] = found[at] + rows if at in found else rows.copy()
    return found


def _label(epoch: int, withdrawn: tuple[EpochRange, ...]) -> int:
    while epoch > 0 and any(epoch in run for run in withdrawn):
        epoch -= 1
    return epoch
