"""Reinstating a voided range, after a false alarm: what it held, published again (pure).

All accepted deltas that belong to the range are summed a trainer, retractions included whenever they arrived; epochs
that other voids cover are left out. The blocks belong to the epoch of their arrival, so that a later rollback or
retraction finds them there.

Expiries are given back as well, as they would be now: what was retracted since of a row is not expired again, and a row
that has expired once more since the rollback needs no other expiry.
"""

from collections.abc import Iterator
from typing import NamedTuple

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.epochs import EpochRange, is_void
from ekko.streams.operations.accepted import Accepted
from ekko.streams.operations.expired_rows import ExpiredRows, reinstated
from ekko.streams.operations.expiry import expiry_name
from ekko.streams.operations.parts import Part
from ekko.streams.operations.sums import Sums


class _Group(NamedTuple):
    table: str
    shard: int
    trainer: str
    effective: int | None


class Reinstatement:
    """Collects what belongs to a void, and what earlier attempts have reinstated of it already.

    Args:
        void: the range to be reinstated.
        operation: identity that the blocks of all attempts carry.
    """

    def __init__(self, void: EpochRange, operation: str) -> None:
        self._void, self._operation = void, operation
        self._found: Sums[_Group] = Sums()
        self._expired = ExpiredRows()

    def take(self, accepted: Accepted) -> None:
        """Take an accepted block."""
        block = accepted.block
        group = _Group(block.table, block.shard, block.trainer, accepted.effective)
        if expiry_name(block.trainer) is not None:
            if accepted.effective in self._void:
                self._expired.concern(block)
        elif block.purpose is Purpose.REINSTATE and _identity(block) == self._operation:
            self._found.add(group, block.keys, -block.deltas)
        elif accepted.effective in self._void:
            self._found.add(group, block.keys, block.deltas)
        self._expired.take(accepted)

    def parts(self, voids: tuple[EpochRange, ...]) -> Iterator[Part]:
        """What is still to be published: one sum a table, shard and trainer; expiries come last."""
        others = tuple(void for void in voids if void != self._void)
        total: Sums[_Group] = Sums()
        for group, rows in self._found.items():
            assert group.effective is not None
            # An attempt that was itself voided since counts for nothing; so does what another void took.
            if not is_void(group.effective, others):
                total.add(group._replace(effective=None), rows.keys, rows.deltas)
        for group, rows in sorted(total.items(), key=lambda item: item[0][:3]):
            yield Part(group.table, group.shard, None, group.trainer, rows)
        yield from reinstated(self._expired.changes(), self._void, voids)


def _identity(block: DeltaBlock) -> str:
    """The operation that published a block, without the number of the chunk."""
    return (block.operation or "").rpartition("/")[0]
