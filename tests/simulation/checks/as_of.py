"""Time travel by the lanes alone: what they say belongs to epochs before a state is what does."""

import numpy as np

from tests.simulation.lanes import RegionLog
from tests.simulation.truth import Truth


def check_lanes_as_of(truth: Truth, log: RegionLog) -> None:
    """At rest, for every state that is not withdrawn."""
    for state in range(truth.epoch + 2):
        if any(state in run for run in truth.withdrawn):
            continue
        for table in truth.model.tables:
            keys = truth.keys[table.name]
            rows = np.zeros((len(keys), table.dim), np.int32)
            for block in (entry.block for sent in log.shards for entry in sent):
                if block.table == table.name and block.effective < state and not truth.is_void(block.effective):
                    rows[np.searchsorted(keys, block.keys)] += block.deltas
            wrong = np.flatnonzero((rows != truth.rows(table.name, before=state)).any(axis=1))
            assert not len(wrong), f"region {log.region}, as of state {state}: {len(wrong)} rows of {table} are wrong"
