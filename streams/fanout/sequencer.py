"""Numbers a shard's lane records and says with each of them how far everything is settled."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, Settled
from ekko.schemas.replicas import FanoutState
from ekko.streams.fanout.classes import EpochClasses
from ekko.streams.fanout.intake import Intake
from ekko.streams.fanout.pending import PART_BYTES, Group
from ekko.streams.fanout.rows import RowUpdates


@dataclass(frozen=True, slots=True)
class Draft:
    """A lane record before it has its seq: rows of one table and group, a marker, or only word of `settled`."""

    lane: Lane
    group: Group
    table: str = ""
    rows: RowUpdates | None = field(default=None, repr=False)
    barrier: Barrier | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on the wire before compression, at most."""
        return PART_BYTES if self.rows is None else PART_BYTES + self.rows.wire_bytes


def in_order(draft: Draft) -> tuple[int, bool, bool]:
    """Sort key: a marker stands between what arrived before its barrier and what arrived after it."""
    return draft.group.arrival, draft.barrier is None, draft.lane is Lane.BULK


class Sequencer:
    """Seqs over both lanes, where the lanes end, and what is settled.

    Args:
        state: what the last committed transaction says, None if there never was one.
    """

    def __init__(self, model: ModelDeclaration, shard: int, region_incarnation: int, state: FanoutState | None) -> None:
        assert model.incarnation is not None
        self._incarnation, self._region_incarnation, self._shard = model.incarnation, region_incarnation, shard
        self.settled = state.settled if state else Settled()
        self._seq = state.seq if state else 0
        self._lane_seq = (
            {Lane.EXPRESS: state.express_seq, Lane.BULK: state.bulk_seq} if state else dict.fromkeys(Lane, 0)
        )
        self._ends = dict.fromkeys(Lane, 0)
        begin = {Lane.EXPRESS: state.express_start, Lane.BULK: state.bulk_start} if state else dict.fromkeys(Lane, 0)
        # Lane offsets at or before which an epoch's records begin; every epoch from the settled one on has its entry.
        self._starts = {self.settled.epoch: begin}
        self._marked = self.settled.epoch

    def resume(self, marked: Sequence[int]) -> None:
        """Earlier writers have sent the markers of these epochs, after what is settled."""
        begin = self._starts[self.settled.epoch]
        self._starts |= dict.fromkeys(marked, begin)
        self._marked = max((self._marked, *marked))

    def open(self, barriers: Sequence[Barrier]) -> None:
        """The epochs of these barriers begin where the lanes end now, or later."""
        self._starts |= {barrier.epoch: dict(self._ends) for barrier in barriers}

    def committed(self, ends: dict[Lane, int]) -> None:
        """Records are in the log up to these lane offsets."""
        self._ends |= ends

    def lane_range(self, lane: Lane, epoch: int) -> tuple[int, int]:
        """Lane offsets (start, end) between which the records of an epoch that is not settled are."""
        return self._starts[epoch][lane], self._ends[lane]

    def can_settle(self, unsent: int, classes: EpochClasses) -> bool:
        """Whether the next record would settle more than the last one did; `unsent` as in `number`."""
        return classes.arrival(min(self._marked, unsent)) > self.settled.epoch

    def number(
        self, drafts: Sequence[Draft], intake: Intake, unsent: int, classes: EpochClasses
    ) -> list[tuple[Lane, LaneBlock]]:
        """Lane records in order of their seqs.

        Args:
            drafts: sorted by `in_order`.
            unsent: the oldest epoch of which something stays unsent after all of them; the current one if nothing does.
            classes: only where one begins may everything be settled: a record says of its class where it begins, not
                how far what is summed in it reaches.
        """
        oldest_after: list[int] = []
        for draft in reversed(drafts):
            oldest_after.append(unsent)
            unsent = min(unsent, draft.group.arrival)
        blocks = [
            (draft.lane, self._block(draft, intake, oldest, classes))
            for draft, oldest in zip(drafts, reversed(oldest_after), strict=True)
        ]
        self._starts = {epoch: starts for epoch, starts in self._starts.items() if epoch >= self.settled.epoch}
        return blocks

    def state(self, intake: Intake, catalogue_end: int) -> FanoutState:
        """What a takeover needs to go on after the last record numbered."""
        begin = self._starts[self.settled.epoch]
        return FanoutState(
            incarnation=self._incarnation,
            region_incarnation=self._region_incarnation,
            shard=self._shard,
            seq=self._seq,
            express_seq=self._lane_seq[Lane.EXPRESS],
            bulk_seq=self._lane_seq[Lane.BULK],
            upto=intake.position,
            settled=self.settled,
            express_start=begin[Lane.EXPRESS],
            bulk_start=begin[Lane.BULK],
            catalogue=catalogue_end,
            voids=intake.voids,
        )

    def _block(self, draft: Draft, intake: Intake, oldest_unsent: int, classes: EpochClasses) -> LaneBlock:
        if draft.barrier is not None:
            self._marked = draft.barrier.epoch
        # An epoch is settled from its marker on at the earliest, and when nothing that arrived before it is unsent.
        self.settled = intake.settled(max(classes.arrival(min(self._marked, oldest_unsent)), self.settled.epoch))
        previous, self._seq = self._lane_seq[draft.lane], self._seq + 1
        self._lane_seq[draft.lane] = self._seq
        block = LaneBlock(
            incarnation=self._incarnation,
            region_incarnation=self._region_incarnation,
            shard=self._shard,
            seq=self._seq,
            previous=previous,
            arrival=draft.group.arrival,
            effective=draft.group.effective,
            generation=intake.settled(draft.group.arrival).generation,
            settled=self.settled,
            upto=intake.position,
        )
        if draft.barrier is not None:
            barrier = draft.barrier
            return replace(block, barrier=barrier, catalogue=barrier.catalogue_end, published_us=barrier.written_us)
        if draft.rows is None:
            return block
        newest = classes.newest(block.arrival, intake.unsettled)
        return replace(
            block,
            newest_arrival=newest if newest > block.arrival else None,
            table=draft.table,
            keys=draft.rows.keys,
            deltas=draft.rows.deltas,
            catalogue=draft.rows.catalogue,
            published_us=int(draft.rows.published_us.min()),
        )
