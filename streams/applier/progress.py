"""How far a model's shards have got at one replica: positions, order, readiness, and their version vector."""

from collections.abc import Container, Mapping

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import GapError
from ekko.schemas.replicas import ReplicaState
from ekko.streams.applier.bounds import lost
from ekko.streams.applier.order import LaneOrder
from ekko.streams.applier.readers import LaneReaders
from ekko.streams.log import Bounds, Partition, Record


class ShardProgress:
    """Positions of what was applied, from a stored version vector on.

    Attributes:
        orders: shard -> its contiguity over both lanes.
        catching_up: shards not yet read to the ends seen at the start.
    """

    def __init__(self, readers: LaneReaders, state: ReplicaState) -> None:
        self.orders = {
            shard: LaneOrder(f"{state.model} shard {shard}", position)
            for shard, position in sorted(state.shards.items())
        }
        self.catching_up = frozenset(self.orders)
        self._readers = readers
        self._state = state
        self._ends: Mapping[Partition, Bounds] = {}
        self._next: dict[Partition, int] = {}
        self._lanes = {shard: readers.partitions(shard) for shard in self.orders}
        for shard, position in state.shards.items():
            express, bulk = self._lanes[shard]
            self._next |= {express: position.express.offset, bulk: position.bulk.offset}
        self._control = 0
        self._moved: set[int] = set()

    @property
    def lanes(self) -> list[Partition]:
        """Every lane partition of the owned shards."""
        return list(self._next)

    def positions(self, halted: Container[int]) -> dict[Partition, int]:
        """What is to be read: the lanes of shards that go on, and the control topic."""
        lanes = {partition: offset for partition, offset in self._next.items() if partition.number not in halted}
        return {**lanes, self._readers.control: self._control}

    def lost(self, bounds: Mapping[Partition, Bounds], halted: Container[int]) -> dict[int, GapError]:
        """Shards whose next offset is not in the log any more, and why."""
        found: dict[int, GapError] = {}
        for partition, offset in self._next.items():
            error = lost(partition, offset, bounds[partition])
            if error is not None and partition.number not in halted:
                found.setdefault(partition.number, error)
        return found

    def begin(self, ends: Mapping[Partition, Bounds]) -> None:
        """A shard has caught up once its positions are at or past these ends (they may be transaction markers)."""
        self._ends = ends

    def read_control_from(self, offset: int) -> None:
        """Where the control topic is read on."""
        self._control = offset

    def passed(self, record: Record) -> None:
        """The record is dealt with: applied, or none of ours."""
        if record.partition in self._next:
            self._next[record.partition] = record.offset + 1
            self._moved.add(record.partition.number)
        else:
            self._control = record.offset + 1

    def follow_readers(self, halted: Container[int]) -> None:
        """Everything handed out is dealt with: go past transaction markers, too, as far as the readers got."""
        for partition, offset in self._next.items():
            if partition.number not in halted and self._readers.position(partition) != offset:
                self._next[partition] = self._readers.position(partition)
                self._moved.add(partition.number)
        self._control = self._readers.position(self._readers.control)
        if self.catching_up:
            self.catching_up = frozenset(shard for shard in self.catching_up if shard in halted or self._behind(shard))

    def _behind(self, shard: int) -> bool:
        return any(self._next[partition] < self._ends[partition].end for partition in self._lanes[shard])

    def state(self, catalogue: int, voids: tuple[EpochRange, ...], bound: int) -> ReplicaState:
        """The version vector as of now; the very same object as long as nothing has changed."""
        last = self._state
        if self._moved or (last.catalogue, last.voids, last.bound) != (catalogue, voids, bound):
            shards = dict(last.shards)
            for shard in self._moved:
                express, bulk = self._lanes[shard]
                shards[shard] = self.orders[shard].position(self._next[express], self._next[bulk])
            self._moved.clear()
            self._state = ReplicaState(
                last.model, last.incarnation, last.region_incarnation, shards, voids, catalogue, bound
            )
        return self._state
