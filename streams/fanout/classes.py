"""Which epochs are one: where only withdrawn states stand between them, nobody can tell their sums apart any more."""

from collections.abc import Iterable
from dataclasses import dataclass

from ekko.schemas.epochs import EpochRange, is_void, label_of
from ekko.streams.fanout.pending import Group


@dataclass(frozen=True, slots=True)
class EpochClasses:
    """A partition of the epochs that are not settled. As more states are withdrawn its classes unite, and never part.

    So to map what an earlier, finer partition has named gives the same as to map what it was made of: a takeover, and
    what is computed again, subtract lane records that were united (or not) at any time in the past.

    Attributes:
        withdrawn: states that no longer part the epochs on their two sides. voids: all that are known.
        settled: the epoch that is settled: no class reaches back across it.
    """

    withdrawn: tuple[EpochRange, ...] = ()
    voids: tuple[EpochRange, ...] = ()
    settled: int = 0

    def arrival(self, epoch: int) -> int:
        """The oldest epoch of the class in which something arrived, the settled one or later."""
        return max(label_of(epoch, self.withdrawn), self.settled)

    def newest(self, arrival: int, epochs: Iterable[int]) -> int:
        """The last of `epochs` (those that are not settled) in the class that is called `arrival`."""
        return max((epoch for epoch in epochs if self.arrival(epoch) == arrival), default=arrival)

    def group(self, group: Group) -> Group:
        """What a sum is called in which this group's deltas are.

        Deltas of an epoch before the class in which they arrived (retractions) keep it. Those of the class itself get
        its first epoch that is not void: stores drop what is called void, and a void never ends within a class that
        has not been voided as a whole, for it begins at a state that is not withdrawn.
        """
        arrival = self.arrival(group.arrival)
        if group.effective < arrival:
            return Group(arrival, group.effective)
        effective = max(label_of(group.effective, self.withdrawn), arrival)
        while effective < group.effective and is_void(effective, self.voids):
            effective += 1
        return Group(arrival, effective)
