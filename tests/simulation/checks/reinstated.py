"""What a reinstatement that has ended well was to give back is there again, once, whatever was rolled back meanwhile.

That rows, now and as of every state, are the sums of what stands in the source log is the business of other checks.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.epochs import EpochRange, is_void
from ekko.schemas.quantize import Int32s
from tests.simulation.truth import Accepted, Truth

Sums = dict[tuple[str, str], Int32s]
"""(table, trainer) -> int32[keys, dim], those that are not all zero."""


class Reinstated(NamedTuple):
    """A reinstatement that has ended well; `ends`: by shard, where the source log ended then."""

    void: EpochRange
    ends: tuple[int, ...]


def check_reinstated(truth: Truth, done: Iterable[Reinstated]) -> None:
    """At rest, for each of them, by what the log held when it ended and the voids that it knew."""
    for void, ends in done:
        name = f"reinstate/{void.first}-{void.last}"
        marks = [block for (shard, offset), block in truth.blocks if offset < ends[shard] and _mark(block) == name]
        voids = truth.voids[: max(mark.generation for mark in marks)]
        there = [entry for entry in truth.accepted if entry.origin[1] < ends[entry.origin[0]]]
        _Reinstatement(truth, name, void, voids, there).check()


class _Reinstatement:
    """One, with the blocks and the voids that there were."""

    def __init__(
        self, truth: Truth, name: str, void: EpochRange, voids: tuple[EpochRange, ...], there: list[Accepted]
    ) -> None:
        self._truth, self._name, self._void, self._voids = truth, name, void, voids
        self._learnt = [entry for entry in there if not _names(entry.block)]
        given = [(_names(entry.block), entry) for entry in there if _names(entry.block)]
        self._given = [(names, entry) for names, entry in given if not entry.block.trainer.startswith("expire/")]
        through = {each for names, entry in self._in_force(name) for each in names[:-1]}
        self._others = tuple(v for v in voids if v != void and f"reinstate/{v.first}-{v.last}" not in through)

    def _in_force(self, name: str) -> list[tuple[list[str], Accepted]]:
        """What a reinstatement, or others for it, have given back."""
        mine = [(names, entry) for names, entry in self._given if names[-1] == name]
        return [(names, entry) for names, entry in mine if not is_void(entry.effective, self._voids)]

    def _belongs(self, entry: Accepted) -> bool:
        return entry.effective in self._void and not is_void(entry.effective, self._others)

    def check(self) -> None:
        """All that belongs to the void is back, and so is what others had given back in it."""
        lost = [at for at in self._learnt if self._belongs(at) and not at.block.trainer.startswith("expire/")]
        self._same(lost, [entry for _, entry in self._in_force(self._name)], f"{self._name} of {self._void}")
        for other in sorted({names[-1] for names, at in self._given if self._belongs(at)} - {self._name}):
            since = [(names, entry) for names, entry in self._in_force(other) if entry.effective > self._void.last]
            if all(names[0] == self._name for names, _ in since):  # else it has gone on, and is checked when it ended
                held = [entry for names, entry in self._given if names[-1] == other and self._belongs(entry)]
                self._same(held, [entry for _, entry in since], f"{self._name} for {other}")

    def _same(self, lost: Iterable[Accepted], back: Iterable[Accepted], what: str) -> None:
        expected, found = self._sums(lost), self._sums(back)
        for at in expected.keys() | found.keys():
            wanted, rows = expected.get(at, np.int32(0)), found.get(at, np.int32(0))
            assert np.array_equal(*np.broadcast_arrays(wanted, rows)), f"{what}: {rows} is back of {at}, not {wanted}"

    def _sums(self, entries: Iterable[Accepted]) -> Sums:
        sums: Sums = {}
        for block in (entry.block for entry in entries):
            keys = self._truth.keys[block.table]
            empty = np.zeros((len(keys), block.deltas.shape[1]), np.int32)
            sums.setdefault((block.table, block.trainer), empty)[np.searchsorted(keys, block.keys)] += block.deltas
        return sums


def _names(block: DeltaBlock) -> list[str]:
    """The reinstatements through which a block has come back, the first one last; none: it was learnt."""
    return _whose(block).split(" for ") if block.purpose is Purpose.REINSTATE else []


def _whose(block: DeltaBlock) -> str:
    return (block.operation or "").rpartition("/")[0]


def _mark(block: DeltaBlock) -> str:
    """Whose mark a block is, up to which an operation reads."""
    return _whose(block) if (block.operation or "").endswith("/0") else ""
