"""One shard's lanes of a donor region, from a snapshot's last complete state up to the snapshot's positions."""

from collections.abc import Iterator

from ekko.schemas import topics
from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import GapError
from ekko.schemas.replicas import LanePosition, ShardPosition
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.ranges import Range, read_ranges
from ekko.streams.log import Cluster, Partition

_FIRST_STRETCH = 512
"""Records looked at first when searching backwards; each stretch is four times as long as the one before."""

_TIMEOUT_S = 30.0


class DonorLanes:
    """Reads a donor's lanes; changes nothing.

    Args:
        position: the snapshot's place in this shard.
    """

    def __init__(
        self,
        cluster: Cluster,
        region: RegionDeclaration,
        model: ModelDeclaration,
        catalogue: SharedCatalogue,
        *,
        shard: int,
        position: ShardPosition,
    ) -> None:
        self._cluster, self._region, self._model = cluster, region, model
        self._catalogue, self._shard, self._position = catalogue, shard, position
        self._starts: dict[Lane, int] = {}

    def find_starts(self) -> None:
        """Find where in each lane the records begin that arrived since the snapshot's complete state.

        Raises:
            GapError: retention has passed that place.
        """
        offset, seq = self._marker()
        self._starts = {Lane.EXPRESS: offset, Lane.BULK: self._bulk_start(seq)}

    def blocks(self, lane: Lane) -> Iterator[LaneBlock]:
        """Every block that the snapshot holds of what arrived since that state, and maybe older ones; in order."""
        if not self._starts:
            self.find_starts()
        return (block for _, block in self._read(lane, self._starts[lane], self._place(lane).offset))

    def barriers_after(self, upto: int) -> list[LaneBlock]:
        """Markers of barriers at source offsets below `upto` that the snapshot does not hold.

        A bulk block may be in the snapshot, and the marker of its transaction not yet.
        """
        partition = self._partition(Lane.EXPRESS)
        end = self._cluster.bounds([partition])[partition].end
        found = []
        for _, block in self._read(Lane.EXPRESS, self._place(Lane.EXPRESS).offset, end):
            if block.upto > upto:
                break
            if block.barrier is not None:
                found.append(block)
        return found

    def _marker(self) -> tuple[int, int]:
        """Offset and seq of the marker of the complete state; (0, 0) before the first."""
        state = self._position.complete
        if state == 0:
            self._refuse_trimmed(Lane.EXPRESS)
            self._refuse_trimmed(Lane.BULK)
            return 0, 0
        for stretch in self._backwards(Lane.EXPRESS):
            markers = [
                (offset, block.seq)
                for offset, block in stretch
                if block.barrier is not None and block.barrier.epoch == state
            ]
            if markers:
                return markers[-1]
        raise self._gone(Lane.EXPRESS, f"the marker of state {state} is not in it any more")

    def _bulk_start(self, marker_seq: int) -> int:
        """The offset after the last bulk record that was sent before the marker."""
        place = self._place(Lane.BULK)
        if marker_seq == 0:
            return 0
        if place.seq < marker_seq:
            return place.offset
        first: LaneBlock | None = None
        for stretch in self._backwards(Lane.BULK):
            earlier = [offset for offset, block in stretch if block.seq < marker_seq]
            if earlier:
                return earlier[-1] + 1
            first = stretch[0][1] if stretch else first
        low = self._low(Lane.BULK)
        if low > 0 and (first is None or first.previous > marker_seq):
            raise self._gone(Lane.BULK, f"records of state {self._position.complete} are not in it any more")
        return low

    def _backwards(self, lane: Lane) -> Iterator[list[tuple[int, LaneBlock]]]:
        """Stretches of the lane from the snapshot's position back to what is left of it."""
        low, end, length = self._low(lane), self._place(lane).offset, _FIRST_STRETCH
        while end > low:
            start = max(low, end - length)
            yield list(self._read(lane, start, end))
            end, length = start, 4 * length

    def _read(self, lane: Lane, start: int, end: int) -> Iterator[tuple[int, LaneBlock]]:
        ranges = {self._partition(lane): Range(start, end)}
        for record in read_ranges(self._cluster, ranges, _TIMEOUT_S, purpose="to seed a region"):
            block = self._catalogue.decode(record.value)
            if isinstance(block, LaneBlock) and block.region_incarnation == self._region.incarnation:
                yield record.offset, block

    def _refuse_trimmed(self, lane: Lane) -> None:
        if self._low(lane) > 0:
            raise self._gone(lane, "no state is complete in the snapshot, so all of it is needed")

    def _gone(self, lane: Lane, why: str) -> GapError:
        topic, number = self._partition(lane)
        return GapError(
            f"{topic}[{number}] begins at {self._low(lane)}: {why}",
            hint="take a newer snapshot of the donor with `ekko snapshot --store HOST:PORT`; nothing was changed",
        )

    def _low(self, lane: Lane) -> int:
        partition = self._partition(lane)
        return self._cluster.bounds([partition])[partition].low

    def _place(self, lane: Lane) -> LanePosition:
        return self._position.express if lane is Lane.EXPRESS else self._position.bulk

    def _partition(self, lane: Lane) -> Partition:
        return Partition(topics.lane(self._model.name, self._region.name, lane), self._shard)
