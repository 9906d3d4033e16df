"""Completeness is honest: `settled` never claims what is not sent yet, and in the end everything is."""

from collections import defaultdict

import numpy as np

from ekko.schemas.blocks import LaneBlock
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from tests.simulation.lanes import RegionLog
from tests.simulation.truth import Truth

Sums = dict[tuple[str, int], Int32s]
"""(table, effective epoch) -> int32[keys, dim]; of epochs that withdrawn states make one, the oldest."""


def check_settled_is_honest(truth: Truth, log: RegionLog) -> None:
    """With the record that says "settled s", all that arrived before barrier s has been sent in this record or earlier.

    Voided deltas need not be sent. Nor may anything that arrived before s follow.
    """
    for shard, sent in enumerate(log.shards):
        where = f"region {log.region}, shard {shard}"
        ledger = _Ledger(truth, shard)
        settled = 0
        for block in (entry.block for entry in sent):
            late = len(block.keys) and block.arrival < settled and not truth.is_void(block.effective)
            assert not late, f"{where}: seq {block.seq} has deltas of epoch {block.arrival}, yet {settled} was settled"
            ledger.take(block)
            if block.settled.epoch > settled:
                settled = block.settled.epoch
                open_groups = ledger.unbalanced(before=settled)
                assert not open_groups, (
                    f"{where}: seq {block.seq} settles {settled}, but not all is sent of (table, effective epoch) "
                    f"{open_groups}"
                )


def check_all_settled(truth: Truth, log: RegionLog) -> None:
    """At rest everything accepted is sent exactly once, and settled stands at the last barrier."""
    for shard, sent in enumerate(log.shards):
        where = f"region {log.region}, shard {shard}"
        ledger = _Ledger(truth, shard)
        for entry in sent:
            ledger.take(entry.block)
        open_groups = ledger.unbalanced(before=truth.epoch + 1)
        assert not open_groups, f"{where}: not sent in the end, or not once: (table, effective epoch) {open_groups}"
        settled = sent[-1].block.settled.epoch if sent else 0
        assert settled == truth.epoch, f"{where}: settled ends at {settled}, not {truth.epoch}"


class _Ledger:
    """What arrived in a shard minus what was sent, by arrival epoch, table and effective epoch; no void epochs."""

    def __init__(self, truth: Truth, shard: int) -> None:
        self._truth = truth
        self._left: dict[int, Sums] = defaultdict(dict)
        for entry in truth.accepted:
            if entry.origin[0] == shard:
                self._add(entry.arrival, (entry.block.table, entry.effective), entry.block.keys, entry.block.deltas)

    def take(self, block: LaneBlock) -> None:
        """A record was sent."""
        if len(block.keys):
            self._add(block.arrival, (block.table, block.effective), block.keys, -block.deltas)

    def _add(self, arrival: int, group: tuple[str, int], keys: UInt64s, deltas: Int32s) -> None:
        if self._truth.is_void(group[1]):
            return
        group = group[0], self._truth.label(group[1])
        known = self._truth.keys[group[0]]
        places = np.searchsorted(known, keys)
        assert (known.take(places, mode="clip") == keys).all(), f"{group}: keys were sent that nobody published"
        sums = self._left[arrival].setdefault(group, np.zeros((len(known), deltas.shape[1]), np.int32))
        sums[places] += deltas

    def unbalanced(self, *, before: int) -> list[tuple[str, int]]:
        """Groups that arrived before an epoch and were not sent exactly once; arrivals summed, for labels may unite."""
        total: Sums = {}
        for arrival, sums in self._left.items():
            if arrival < before:
                for group, values in sums.items():
                    total[group] = total[group] + values if group in total else values
        return sorted(group for group, values in total.items() if values.any())
