"""Reinstating a voided range, after a false alarm: what it held, published again (pure).

All accepted deltas that belong to the range are summed a trainer, retractions included whenever they arrived; epochs
that other voids cover are left out. The blocks belong to the epoch of their arrival, so that a later rollback or
retraction finds them there.

What other reinstatements had given back within the range is given back in their name ("reinstate/6-9 for
reinstate/3-5"), unless they have gone on since. So each of them knows what is back already, and nothing comes back
twice, in whatever order several rollbacks are reinstated.

Expiries are given back as well, as they would be now: what was retracted since of a row is not expired again, and a row
that has expired once more since the rollback needs no other expiry.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.epochs import EpochRange, is_void
from ekko.streams.operations.accepted import Accepted
from ekko.streams.operations.expired_rows import ExpiredRows, reinstated
from ekko.streams.operations.expiry import expiry_name
from ekko.streams.operations.parts import Part
from ekko.streams.operations.sums import Sums

_FOR = " for "
_NAME = re.compile(r"reinstate/(\d+)-(\d+)")


class _Group(NamedTuple):
    """Whose deltas, and `behalf`: the reinstatement that had given them back, "" for deltas as they were learnt."""

    table: str
    shard: int
    trainer: str
    behalf: str
    effective: int | None


def reinstatement_name(void: EpochRange) -> str:
    """The identity of the operation that reinstates a void."""
    return f"reinstate/{void.first}-{void.last}"


class Reinstatement:
    """Collects what belongs to a void, and what earlier attempts have reinstated of it already."""

    def __init__(self, void: EpochRange) -> None:
        self._void, self._name = void, reinstatement_name(void)
        self._held: Sums[_Group] = Sums()
        self._given: Sums[_Group] = Sums()
        self._through: dict[EpochRange, set[int]] = {}
        self._gone_on: dict[str, set[int]] = {}
        self._expired = ExpiredRows()

    def take(self, accepted: Accepted) -> None:
        """Take an accepted block."""
        block = accepted.block
        if expiry_name(block.trainer) is not None:
            if accepted.effective in self._void:
                self._expired.concern(block)
        else:
            self._take_learnt(block, accepted.effective)
        self._expired.take(accepted)

    def _take_learnt(self, block: DeltaBlock, effective: int) -> None:
        name, _, behalf = _identity(block).partition(_FOR)
        *through, first = _identity(block).split(_FOR)
        group = _Group(block.table, block.shard, block.trainer, "", effective)
        if first == self._name:
            self._given.add(group, block.keys, block.deltas)
            for found in filter(None, map(_NAME.fullmatch, through)):
                self._through.setdefault(EpochRange(int(found[1]), int(found[2])), set()).add(effective)
        elif name == self._name:
            self._given.add(group._replace(behalf=behalf), block.keys, block.deltas)
        elif effective in self._void:
            self._held.add(group._replace(behalf=_identity(block)), block.keys, block.deltas)
        elif effective > self._void.last:
            self._gone_on.setdefault(first, set()).add(effective)

    def parts(self, voids: tuple[EpochRange, ...]) -> Iterator[Part]:
        """What is still to be published: one sum a table, shard, trainer and reinstatement; expiries come last."""
        total: Sums[_Group] = Sums()
        others = self._others(voids)
        for group, rows in self._held.items():
            if not _is_void(group, others) and not self._has_gone_on(group.behalf, voids):
                total.add(group._replace(effective=None), rows.keys, rows.deltas)
        for group, rows in self._given.items():
            # An attempt that was itself voided since counts for nothing.
            if not _is_void(group, voids) and not self._has_gone_on(group.behalf, voids):
                total.add(group._replace(effective=None), rows.keys, -rows.deltas)
        for group, rows in sorted(total.items(), key=lambda item: item[0][:4]):
            name = self._name + _FOR + group.behalf if group.behalf else self._name
            yield Part(group.table, group.shard, None, group.trainer, rows, name)
        yield from reinstated(self._expired.changes(), self._void, voids)

    def _others(self, voids: tuple[EpochRange, ...]) -> tuple[EpochRange, ...]:
        """Voids whose epochs are left out: not those that were reinstated with what this one had given back before."""
        through = {void for void, epochs in self._through.items() if any(not is_void(epoch, voids) for epoch in epochs)}
        return tuple(void for void in voids if void != self._void and void not in through)

    def _has_gone_on(self, behalf: str, voids: tuple[EpochRange, ...]) -> bool:
        """Whether something is in force that a reinstatement, or another one for it, has given back since the void."""
        epochs = self._gone_on.get(behalf.rpartition(_FOR)[2], set()) if behalf else set()
        return any(not is_void(epoch, voids) for epoch in epochs)


def _is_void(group: _Group, voids: tuple[EpochRange, ...]) -> bool:
    assert group.effective is not None
    return is_void(group.effective, voids)


def _identity(block: DeltaBlock) -> str:
    """The reinstatement that published a block, without the number of the chunk; "" for what was learnt."""
    return (block.operation or "").rpartition("/")[0] if block.purpose is Purpose.REINSTATE else ""
