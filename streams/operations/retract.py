"""Retracting one trainer: its accepted deltas of some epochs, exactly negated, epoch by epoch (pure).

A retraction belongs to the epoch that it takes back, so it is void exactly when what it retracts is. Earlier
retractions of the same trainer count with it, so that doing it twice, or going on after a crash, takes back nothing
twice. Rows that have expired since are corrected, see `expired_rows`.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ekko.schemas.epochs import EpochRange, is_void
from ekko.streams.operations.accepted import Accepted
from ekko.streams.operations.expired_rows import ExpiredRows, corrections
from ekko.streams.operations.parts import Part
from ekko.streams.operations.sums import Rows, Sums


class _Group(NamedTuple):
    table: str
    shard: int
    effective: int


class Retraction:
    """Collects what a trainer has contributed to `epochs`, block by block."""

    def __init__(self, trainer: str, epochs: EpochRange) -> None:
        self._trainer, self._epochs = trainer, epochs
        self._contributed: Sums[_Group] = Sums()
        self._expired = ExpiredRows()

    def take(self, accepted: Accepted) -> None:
        """Take an accepted block."""
        block = accepted.block
        if block.trainer == self._trainer and accepted.effective in self._epochs:
            group = _Group(block.table, block.shard, accepted.effective)
            self._contributed.add(group, block.keys, block.deltas)
            self._expired.concern(block)
        self._expired.take(accepted)

    def parts(self, voids: tuple[EpochRange, ...]) -> Iterator[Part]:
        """What is to be published, in order of epochs; void epochs need nothing. Corrections of expiries come last."""
        found = sorted(self._contributed.items(), key=lambda item: (item[0].effective, item[0]))
        retracted = []
        for group, rows in found:
            if not is_void(group.effective, voids):
                negated = Rows(rows.keys, -rows.deltas)
                retracted.append(Part(group.table, group.shard, group.effective, self._trainer, negated))
        yield from retracted
        yield from corrections(self._expired.changes(), retracted, voids, self._epochs.first)
