"""Seeding one shard of a new region: its lanes begin with what its donor's snapshot holds of epochs not settled.

A snapshot S of the donor that is complete at state c holds all that arrived before c, and of what arrived since some
rows: those of the donor's lane blocks up to S's positions. What waits for the new region is therefore
(source since c) - (these blocks). Copied into the new region's own lanes, before the place where its stores begin to
read, they make that the ordinary rule of every takeover, (source) - (lanes): nothing needs the donor any more.

The seed itself counts as the record with seq 1 of both lanes, which no lane holds: so a store without S finds a gap.
Everything is a function of S and the donor's lanes, hence whatever dies half way is gone through again and finished.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ekko.schemas import topics
from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import EpochRange, Settled
from ekko.schemas.errors import GapError
from ekko.schemas.replicas import FanoutState, LanePosition, ShardPosition
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.donor_lanes import DonorLanes
from ekko.streams.fanout.ranges import Range, read_ranges
from ekko.streams.log import Cluster, Output, Partition, Record, TransactionalWriter, read_range

SEED_SEQ = 1
"""The seq of the seed itself, in both lanes."""

_TRANSACTION_BYTES = 1 << 20
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Seed:
    """What a shard is seeded with.

    Attributes:
        position: the snapshot's, in the donor's lanes. settled: the barrier of the state at which it is complete.
        voids: those the snapshot knows.
    """

    shard: int
    position: ShardPosition
    settled: Settled
    voids: tuple[EpochRange, ...]


class ShardSeeding:
    """Writes the seed of one shard.

    Args:
        donor: its lanes of this shard, up to the seed's positions.
        regional: the new region's cluster.
    """

    def __init__(
        self,
        donor: DonorLanes,
        regional: Cluster,
        region: RegionDeclaration,
        model: ModelDeclaration,
        catalogue: SharedCatalogue,
        *,
        seed: Seed,
    ) -> None:
        assert region.incarnation is not None
        self._donor, self._regional, self._region, self._model = donor, regional, region, model
        self._incarnation, self._catalogue, self._seed = region.incarnation, catalogue, seed
        self._seq, self._lane_seq = SEED_SEQ, dict.fromkeys(Lane, SEED_SEQ)
        self._ends = dict.fromkeys(Lane, 0)
        self._upto = seed.settled.offset

    def copy(self, writer: TransactionalWriter | None) -> ShardPosition:
        """Copy the donor's blocks, those left out that are there already; where a store with the seed begins to read.

        Args:
            writer: the region's only one; None once the seed is whole (`is_open`), when nothing is to be written.

        Raises:
            GapError: the donor's lanes do not reach back any more, or the region's lanes hold something else.
            Fenced, CommitUncertain, TransactionAborted: as `transact` does; try again with another writer.
        """
        for lane in Lane:
            self._copy_lane(lane, writer)
        express, bulk = (LanePosition(self._ends[lane], self._lane_seq[lane]) for lane in (Lane.EXPRESS, Lane.BULK))
        seed = self._seed.position
        return ShardPosition(express, bulk, self._seq, (), seed.complete, seed.generation)

    def open(self, writer: TransactionalWriter) -> None:
        """After `copy`: forward barriers that the snapshot has passed by, and let the fan-out begin; one transaction.

        Raises:
            As `copy`.
        """
        if self.is_open():
            return
        outputs = [
            Output(self._lane(Lane.EXPRESS), encode(self._numbered(Lane.EXPRESS, marker)))
            for marker in self._donor.barriers_after(self._upto)
        ]
        number = self._seed.shard
        topic = topics.fanout(self._model.name, self._region.name)
        outputs.append(Output(Partition(topic, number), encode(self._state()), str(number).encode()))
        writer.transact(outputs, _TIMEOUT_S)

    def is_open(self) -> bool:
        """Whether the seed is whole: a fan-out has begun, or may begin."""
        partition = Partition(topics.fanout(self._model.name, self._region.name), self._seed.shard)
        low = self._regional.bounds([partition])[partition].low
        # Records, not offsets: an attempt whose transaction was aborted leaves offsets and no record.
        return bool(read_range(self._regional, {partition: low}))

    def is_visible(self, position: ShardPosition) -> bool:
        """Whether readers see the copies: a commit's answer may come before its markers stand in every partition."""
        places = {self._lane(Lane.EXPRESS): position.express.offset, self._lane(Lane.BULK): position.bulk.offset}
        return all(bounds.end >= places[at] for at, bounds in self._regional.bounds(places).items())

    def _copy_lane(self, lane: Lane, writer: TransactionalWriter | None) -> None:
        present = self._present(lane)
        outputs: list[Output] = []
        for block in self._donor.blocks(lane):
            self._upto = max(self._upto, block.upto)
            if block.arrival < self._seed.settled.epoch or not (len(block.keys) or block.barrier):
                continue  # settled, or without anything to be subtracted
            output = Output(self._lane(lane), encode(self._numbered(lane, block)))
            record = next(present, None)
            if record is None:
                outputs.append(output)
                if sum(len(waiting.value or b"") for waiting in outputs) > _TRANSACTION_BYTES:
                    self._write(lane, outputs, writer)
            else:
                self._check_same(record, output)
                self._ends[lane] = record.offset + 1
        self._write(lane, outputs, writer)
        rest = next(present, None)
        if rest is not None and not self.is_open():
            raise self._strange(rest)

    def _write(self, lane: Lane, outputs: list[Output], writer: TransactionalWriter | None) -> None:
        if outputs:
            if writer is None:
                raise GapError(
                    f"the {lane} lane of shard {self._seed.shard} has less than this snapshot gives: the region was "
                    "begun with another one",
                    hint=f"go on with that one, or `ekko region remove {self._region.name}` and add it again",
                )
            self._ends[lane] = max(writer.transact(outputs, _TIMEOUT_S)) + 1
            outputs.clear()

    def _present(self, lane: Lane) -> Iterator[Record]:
        """What an earlier attempt has written."""
        partition = self._lane(lane)
        bounds = self._regional.bounds([partition])[partition]
        return read_ranges(
            self._regional, {partition: Range(0, bounds.end)}, _TIMEOUT_S, purpose="to go on with seeding"
        )

    def _check_same(self, record: Record, output: Output) -> None:
        if record.value != output.value:
            raise self._strange(record)

    def _strange(self, record: Record) -> GapError:
        return GapError(
            f"{record.partition.topic}[{record.partition.number}] offset {record.offset} is not what this snapshot "
            "gives: the region was begun with another one",
            hint=f"go on with that one, or `ekko region remove {self._region.name}` and add it again",
        )

    def _numbered(self, lane: Lane, block: LaneBlock) -> LaneBlock:
        """The block as a record of the new region; it settles nothing, for its place in the order means nothing."""
        previous, self._seq = self._lane_seq[lane], self._seq + 1
        self._lane_seq[lane] = self._seq
        return replace(block, region_incarnation=self._incarnation, seq=self._seq, previous=previous, settled=Settled())

    def _state(self) -> FanoutState:
        assert self._model.incarnation is not None
        return FanoutState(
            incarnation=self._model.incarnation,
            region_incarnation=self._incarnation,
            shard=self._seed.shard,
            seq=self._seq,
            express_seq=self._lane_seq[Lane.EXPRESS],
            bulk_seq=self._lane_seq[Lane.BULK],
            upto=self._upto,
            settled=self._seed.settled,
            express_start=0,
            bulk_start=0,
            catalogue=self._catalogue.end,
            voids=self._seed.voids,
        )

    def _lane(self, lane: Lane) -> Partition:
        return Partition(topics.lane(self._model.name, self._region.name, lane), self._seed.shard)
