"""One shard of a region's fan-out, pure: source records in, lane records out, and every sum exact (spec: `Fanout`)."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier, Settled, is_void
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.limits import MAX_ROWS_A_BLOCK
from ekko.schemas.replicas import FanoutState
from ekko.streams.fanout.admission import Admission, CatalogueView
from ekko.streams.fanout.intake import Intake, Refusal
from ekko.streams.fanout.pending import PART_BYTES, Group, Pending
from ekko.streams.fanout.rows import KEY_BYTES, RowUpdates, combine
from ekko.streams.fanout.score import l1_norms
from ekko.streams.fanout.sorting import Sorter
from ekko.streams.log import Record


@dataclass(frozen=True, slots=True)
class Draft:
    """A lane record before it has its seq: rows of one table and group, or a barrier's marker."""

    lane: Lane
    group: Group
    table: str = ""
    rows: RowUpdates | None = field(default=None, repr=False)
    barrier: Barrier | None = None

    @property
    def nbytes(self) -> int:
        """Bytes on the wire before compression, at most."""
        if self.rows is None:
            return PART_BYTES
        return PART_BYTES + self.rows.wire_bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes for a shard: lane records in order of seq, refusals, and the state after them.

    `bulk_bytes` is the size of the bulk in it before compression, at most.
    """

    blocks: list[tuple[Lane, LaneBlock]] = field(repr=False)
    refusals: list[Refusal]
    state: FanoutState
    bulk_bytes: int


class ShardFanout:
    """Reads a shard's source records, and plans transactions for its region's lanes.

    After `plan` either `committed` is called, or this object is thrown away and another one is rebuilt from the log.

    Args:
        model: as declared, with its incarnation.
        state: what the last committed transaction says, None if there never was one. The source is then to be read from
            `state.settled.offset` on; see `rebuild`.
        message_bytes: what a lane topic allows a record.
    """

    def __init__(
        self,
        model: ModelDeclaration,
        shard: int,
        region_incarnation: int,
        catalogue: CatalogueView,
        state: FanoutState | None,
        *,
        message_bytes: int,
    ) -> None:
        assert model.incarnation is not None
        self._model, self._incarnation = model.name, model.incarnation
        self.shard, self._region_incarnation = shard, region_incarnation
        self._catalogue = catalogue
        self._message_bytes = message_bytes
        self.intake = Intake(Admission(model, shard, catalogue), voids=state.voids if state else ())
        self.pending = Pending()
        self.settled = state.settled if state else Settled()
        self._seq = state.seq if state else 0
        self._lane_seq = (
            {Lane.EXPRESS: state.express_seq, Lane.BULK: state.bulk_seq} if state else dict.fromkeys(Lane, 0)
        )
        self._lane_ends = dict.fromkeys(Lane, 0)
        starts = (state.express_start, state.bulk_start) if state else (0, 0)
        # Lane offsets at or before which an epoch's records begin; every epoch from the settled one on has its entry.
        self._starts = {self.settled.epoch: starts}
        self._marked = self.settled.epoch

    # ---- taking over -------------------------------------------------------------------------------------------------

    def subtract_sent(self, block: LaneBlock) -> None:
        """Rebuilding: take back from `pending` what an earlier writer has sent (its arrival epoch is not settled)."""
        if block.arrival >= self.settled.epoch and not is_void(block.effective, self.intake.voids) and len(block.keys):
            self.pending.subtract(Group(block.arrival, block.effective), block.table, block.keys, block.deltas)

    def absorb(self) -> None:
        """Rebuilding: everything read so far waits, and earlier writers have sent its markers and refusals."""
        for (group, table), parts in self.intake.arrivals.items():
            self.pending.add(group, table, combine(parts))
        self.intake.arrivals = {}
        self._starts |= {barrier.epoch: self._starts[self.settled.epoch] for barrier in self.intake.barriers}
        self.intake.barriers, self.intake.refusals = [], []
        self.pending.drop(self.intake.voids)
        self._marked = self.intake.epoch.epoch

    # ---- reading -----------------------------------------------------------------------------------------------------

    def read(self, record: Record) -> bool:
        """Take the next source record, see `Intake.read`."""
        return self.intake.read(record)

    # ---- sending -----------------------------------------------------------------------------------------------------

    def plan(self, sorter: Sorter, now_s: float, bulk_bytes: float) -> Batch | None:
        """What to write now, None if there is nothing.

        Args:
            bulk_bytes: how many bytes of bulk may go, before compression.
        """
        self.intake.reconsider(self._catalogue.end)
        barriers, self.intake.barriers = self.intake.barriers, []
        if any(barrier.voids for barrier in barriers):
            self.pending.drop(self.intake.voids)
        drafts = [Draft(Lane.EXPRESS, Group(barrier.epoch, barrier.epoch), barrier=barrier) for barrier in barriers]
        express, bulk = self._sort_arrivals(sorter, now_s)
        drafts += express
        if not self.pending.rows and sum(draft.nbytes for draft in bulk) <= bulk_bytes:
            drafts += bulk
        else:
            for draft in bulk:
                assert draft.rows is not None
                self.pending.add(draft.group, draft.table, draft.rows)
            drafts += [Draft(Lane.BULK, group, name, rows) for group, name, rows in self.pending.take(bulk_bytes)]
        refusals, self.intake.refusals = self.intake.refusals, []
        if not drafts and not refusals:
            return None
        for barrier in barriers:
            self._starts[barrier.epoch] = self._lane_ends[Lane.EXPRESS], self._lane_ends[Lane.BULK]
        # A marker stands between what arrived before its barrier and after it; its epoch is settled only from there on.
        drafts.sort(key=lambda draft: (draft.group.arrival, draft.barrier is None, draft.lane is Lane.BULK))
        blocks = self._number([part for draft in drafts for part in self._split(draft)])
        self._forget_settled()
        used = sum(draft.nbytes for draft in drafts if draft.lane is Lane.BULK)
        return Batch(blocks, refusals, self._state(), used)

    def committed(self, ends: dict[Lane, int]) -> None:
        """The planned transaction is in the log; the lanes' records end at these offsets."""
        self._lane_ends |= ends

    def _sort_arrivals(self, sorter: Sorter, now_s: float) -> tuple[list[Draft], list[Draft]]:
        """Express and bulk of what arrived; what waits for the same keys joins it, and with its score."""
        arrivals, self.intake.arrivals = self.intake.arrivals, {}
        express: list[Draft] = []
        bulk: list[Draft] = []
        for (group, name), parts in arrivals.items():
            table = self.intake.tables[name]
            updates = combine(parts)
            norms = l1_norms(updates.deltas, table.fraction_bits)
            sorter.observe(self._model, norms, now_s)
            updates, grown = self.pending.take_with(group, name, updates)
            norms[grown] = l1_norms(updates.deltas[grown], table.fraction_bits)
            urgent = sorter.express(self._model, table, updates, norms, now_s)
            for drafts, lane, rows in ((express, Lane.EXPRESS, urgent), (bulk, Lane.BULK, ~urgent)):
                if rows.any():
                    part = updates if rows.all() else updates.select(rows)
                    drafts.append(Draft(lane, group, name, part))
        return express, bulk

    def _split(self, draft: Draft) -> Iterator[Draft]:
        """Parts that fit a record of the lane topic whatever their values are."""
        if draft.rows is None:
            yield draft
            return
        row_bytes = KEY_BYTES + 4 * draft.rows.deltas.shape[1]
        limit = min((self._message_bytes - 2 * PART_BYTES) // row_bytes, MAX_ROWS_A_BLOCK)
        if limit < 1:
            raise ConfigurationError(
                f"a row of table {draft.table} takes {row_bytes} bytes, the lane topics of model {self._model} allow "
                f"{self._message_bytes} a record",
                hint="raise max.message.bytes of the express and bulk topics",
            )
        for start in range(0, len(draft.rows), limit):
            yield replace(draft, rows=draft.rows.select(slice(start, start + limit)))

    def _number(self, drafts: list[Draft]) -> list[tuple[Lane, LaneBlock]]:
        """Give seqs, and to each record as settled what is sent with it and before it."""
        waiting = [self.pending.oldest_arrival, self.intake.oldest_held_arrival]
        unsent = min((arrival for arrival in waiting if arrival is not None), default=self.intake.epoch.epoch)
        oldest_after: list[int] = []
        for draft in reversed(drafts):
            oldest_after.append(unsent)
            unsent = min(unsent, draft.group.arrival)
        return [
            (draft.lane, self._block(draft, oldest))
            for draft, oldest in zip(drafts, reversed(oldest_after), strict=True)
        ]

    def _block(self, draft: Draft, oldest_unsent: int) -> LaneBlock:
        if draft.barrier is not None:
            self._marked = draft.barrier.epoch
        self.settled = self.intake.settled(max(min(self._marked, oldest_unsent), self.settled.epoch))
        previous, self._seq = self._lane_seq[draft.lane], self._seq + 1
        self._lane_seq[draft.lane] = self._seq
        block = LaneBlock(
            incarnation=self._incarnation,
            region_incarnation=self._region_incarnation,
            shard=self.shard,
            seq=self._seq,
            previous=previous,
            arrival=draft.group.arrival,
            effective=draft.group.effective,
            generation=self.intake.settled(draft.group.arrival).generation,
            settled=self.settled,
            upto=self.intake.position,
        )
        if draft.barrier is not None:
            barrier = draft.barrier
            return replace(block, barrier=barrier, catalogue=barrier.catalogue_end, published_us=barrier.written_us)
        assert draft.rows is not None
        return replace(
            block,
            table=draft.table,
            keys=draft.rows.keys,
            deltas=draft.rows.deltas,
            catalogue=draft.rows.catalogue,
            published_us=int(draft.rows.published_us.min()),
        )

    def _forget_settled(self) -> None:
        self.intake.forget_before(self.settled.epoch)
        self._starts = {epoch: starts for epoch, starts in self._starts.items() if epoch >= self.settled.epoch}
        self.pending.drop_empty(self.intake.epoch.epoch)

    def _state(self) -> FanoutState:
        express_start, bulk_start = self._starts[self.settled.epoch]
        return FanoutState(
            incarnation=self._incarnation,
            region_incarnation=self._region_incarnation,
            shard=self.shard,
            seq=self._seq,
            express_seq=self._lane_seq[Lane.EXPRESS],
            bulk_seq=self._lane_seq[Lane.BULK],
            upto=self.intake.position,
            settled=self.settled,
            express_start=express_start,
            bulk_start=bulk_start,
            catalogue=self._catalogue.end,
            voids=self.intake.voids,
        )
