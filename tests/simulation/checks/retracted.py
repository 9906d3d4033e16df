"""What a retraction that has ended well was to take back is gone, and gone once."""

from collections.abc import Iterable

import numpy as np

from ekko.schemas.epochs import EpochRange
from tests.simulation.truth import Truth


def check_retracted(truth: Truth, done: Iterable[tuple[str, EpochRange]]) -> None:
    """At rest, for each trainer and range: its deltas add up to nothing in every epoch of it that is not void.

    The ranges were closed when they were retracted, so nothing of the trainer's own has come into them since.
    """
    for trainer, epochs in done:
        mine = [entry for entry in truth.accepted if entry.block.trainer == trainer and entry.effective in epochs]
        for table, effective in {(entry.block.table, entry.effective) for entry in mine}:
            if truth.is_void(effective):
                continue
            left = np.zeros((len(truth.keys[table]), truth.model.table(table).dim), np.int32)
            for entry in mine:
                if (entry.block.table, entry.effective) == (table, effective):
                    left[np.searchsorted(truth.keys[table], entry.block.keys)] += entry.block.deltas
            assert not left.any(), f"{trainer}, {epochs}: retracted, yet {left.tolist()} is left in epoch {effective}"
