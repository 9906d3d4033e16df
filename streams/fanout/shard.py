"""One shard of a region's fan-out, pure: source records in, lane records out, and every sum exact (spec: `Fanout`)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Settled, is_void, without_state
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.limits import MAX_ROWS_A_BLOCK
from ekko.schemas.replicas import FanoutState
from ekko.streams.fanout.admission import Admission, CatalogueView
from ekko.streams.fanout.cadence import Cadence
from ekko.streams.fanout.classes import EpochClasses
from ekko.streams.fanout.held import Fetch, HeldRecords
from ekko.streams.fanout.intake import Arrivals, Intake, Refusal
from ekko.streams.fanout.memory import MemoryBound
from ekko.streams.fanout.pending import PART_BYTES, Allowance, Group, Pending
from ekko.streams.fanout.rows import KEY_BYTES, RowUpdates, combine, concatenate, merge
from ekko.streams.fanout.sequencer import Draft, Sequencer, in_order
from ekko.streams.fanout.sorting import Sorter
from ekko.streams.log import Record

_HELD_PART = 8
"""This part of a shard's memory is for records that wait for the catalogue."""


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

    After `plan` either `sequencer.committed` is called, or this object is thrown away and another one is rebuilt from
    the log (`takeover`).

    Args:
        model: as declared, with its incarnation.
        state: what the last committed transaction says, None if there never was one.
        message_bytes: what a lane topic allows a record.
        memory: bound of what waits. Bulk that arrives beyond it is forgotten, and computed again from the log when its
            epoch has ended and there is room (`recomputation`).
        fetch: reads source records again that wait for the catalogue and were too many to be kept.
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
        memory: MemoryBound,
        fetch: Fetch,
    ) -> None:
        self._model, self.shard = model.name, shard
        self._catalogue, self._memory = catalogue, memory
        self._message_bytes = message_bytes
        held = HeldRecords(memory.a_shard // _HELD_PART, fetch)
        self.intake = Intake(Admission(model, shard, catalogue), held, voids=state.voids if state else ())
        self.pending = Pending()
        self._cadence = Cadence()
        self.sequencer = Sequencer(model, shard, region_incarnation, state)
        self.forgotten: set[int] = set()
        """Arrival epochs of which bulk has been forgotten; of classes of them, the first."""
        self._recomputing: tuple[int, ...] = ()
        self._classes = EpochClasses()

    @property
    def settled(self) -> Settled:
        """The last barrier before which everything that arrived has been sent."""
        return self.sequencer.settled

    # ---- taking over -------------------------------------------------------------------------------------------------

    def absorb(self) -> None:
        """Rebuilding: everything read so far waits, and earlier writers have sent its markers.

        Refusals are told once more, for an earlier writer may not have read the catalogue far enough to decide; their
        key is the origin, so that no more than one of them stays.
        """
        for arrivals in self.intake.take_arrivals(self._catalogue.end):
            for (group, table), parts in self._grouped(arrivals).items():
                self._wait(group, table, combine(parts))
        self.sequencer.resume([barrier.epoch for barrier in self.intake.barriers])
        self.intake.barriers = []
        self.pending.drop(self.intake.voids)
        self._unite()  # everything that an earlier writer may have united
        for arrival in self.forgotten:
            self.pending.drop_arrival(arrival)

    def subtract_sent(self, block: LaneBlock) -> None:
        """Rebuilding: take back from what waits what an earlier writer has sent (its arrival epoch is not settled)."""
        waits = block.arrival >= self.settled.epoch and self._classes.arrival(block.arrival) not in self.forgotten
        if waits and len(block.keys) and not is_void(block.effective, self.intake.voids):
            group = self.group_of(Group(block.arrival, block.effective))
            self.pending.subtract(group, block.table, block.keys, block.deltas)

    # ---- sending -----------------------------------------------------------------------------------------------------

    def read(self, record: Record) -> bool:
        """Take the next source record, see `Intake.read`."""
        return self.intake.read(record)

    def awake(self, now_s: float) -> Pending:
        """What waits and may go: all but dense tables whose time has not come; what an ended epoch left may always."""
        resting, current = self._cadence.resting(self.intake.tables, now_s), self.intake.epoch.epoch
        if not resting:
            return self.pending
        return self.pending.some(lambda group, name: name not in resting or group.arrival < current)

    def plan(self, sorter: Sorter, now_s: float, allowance: Allowance) -> Batch | None:
        """What to write now, None if there is nothing; `allowance`: of bulk."""
        self.intake.reconsider(self._catalogue.end)
        barriers, self.intake.barriers = self.intake.barriers, []
        refusals, self.intake.refusals = self.intake.refusals, []
        if any(barrier.voids for barrier in barriers):
            self.pending.drop(self.intake.voids)
        drafts = [Draft(Lane.EXPRESS, Group(barrier.epoch, barrier.epoch), barrier=barrier) for barrier in barriers]
        express, bulk = self._sort_arrivals(sorter, now_s, allowance.due_us)
        allowance = allowance.behind(sum(draft.nbytes for draft in express))
        dense = self._send_dense(now_s, allowance)
        bulk = dense + self._pace(bulk, now_s, allowance.after(sum(draft.nbytes for draft in dense)))
        drafts += express + bulk
        if not drafts and self.sequencer.can_settle(self._oldest_unsent(), self._classes):
            # What waited has cancelled out: nothing is to be sent, but that must be told.
            drafts.append(Draft(Lane.EXPRESS, Group(self.intake.epoch.epoch, self.intake.epoch.epoch)))
        self.pending.drop_empty(self.intake.epoch.epoch)
        if not drafts and not refusals:
            return None
        self.sequencer.open(barriers)
        drafts = [part for draft in sorted(drafts, key=in_order) for part in self._split(draft)]
        blocks = self.sequencer.number(drafts, self.intake, self._oldest_unsent(), self._classes)
        self.intake.forget_before(self.settled.epoch)
        if barriers:
            self.pending.compact()  # a class lasts for longer than the rows of its first epochs wait
            self._unite(self._kept_apart())
        state = self.sequencer.state(self.intake, self._catalogue.end)
        return Batch(blocks, refusals, state, sum(draft.nbytes for draft in bulk))

    def _sort_arrivals(self, sorter: Sorter, now_s: float, due_us: int) -> tuple[list[Draft], list[Draft]]:
        """Express and bulk of what arrived; what waits for the same keys joins it, and may be lifted by it."""
        arrivals, self.intake.arrivals = self._grouped(self.intake.arrivals), {}
        express: list[Draft] = []
        bulk: list[Draft] = []
        for (group, name), parts in arrivals.items():
            table = self.intake.tables[name]
            learnt = [part for part in parts if part.learnt and not table.send_every_s]
            if len(learnt) < len(parts):
                self._wait(group, name, combine([part for part in parts if not part.learnt or table.send_every_s]))
            if not learnt:
                continue
            arrived = concatenate(learnt)
            updates, urgent = merge(arrived, sorter.urgent(self._model, table, arrived, now_s))
            updates, grown = self.pending.take_with(group, name, updates)
            # Lifted sooner, a hot key would go again and again with little.
            grown &= updates.published_us < due_us
            if grown.any():
                urgent[grown] |= sorter.lifted(self._model, table, updates.select(grown), now_s)
            for drafts, lane, rows in ((express, Lane.EXPRESS, urgent), (bulk, Lane.BULK, ~urgent)):
                if rows.any():
                    part = updates if rows.all() else updates.select(rows)
                    drafts.append(Draft(lane, group, name, part))
        return express, bulk

    def _send_dense(self, now_s: float, allowance: Allowance) -> list[Draft]:
        """Dense tables whose time has come: before other bulk, row by row in turn if they do not fit."""
        dense = [table for table in self.intake.tables.values() if table.send_every_s]
        if not dense:
            return []
        names = {table.name for table in dense}
        due = self.awake(now_s).some(lambda _, name: name in names)
        went = due.take(Allowance(allowance.total, allowance.total))
        drafts = [Draft(Lane.BULK, group, name, rows) for group, name, rows in went]
        for table in dense:
            if any(draft.table == table.name for draft in drafts) and not due.rows_of(table.name):
                self._cadence.sent(table, now_s)
        return drafts

    def _pace(self, arrived: list[Draft], now_s: float, allowance: Allowance) -> list[Draft]:
        """The bulk that may go now; the rest waits."""
        awake = self.awake(now_s)
        if not awake.rows and sum(draft.nbytes for draft in arrived) <= allowance.total:
            return arrived
        for draft in arrived:
            assert draft.rows is not None
            self._wait(draft.group, draft.table, draft.rows)
        return [Draft(Lane.BULK, group, name, rows) for group, name, rows in self.awake(now_s).take(allowance)]

    def _wait(self, group: Group, table: str, updates: RowUpdates) -> None:
        """Let updates wait, or forget them if there is no room: then their whole arrival epoch is computed again."""
        if not self._memory.has_room(self.pending.nbytes_with(group, table, updates)):
            self.forgotten.add(group.arrival)
        if group.arrival not in self.forgotten:
            self.pending.add(group, table, updates)

    def _oldest_unsent(self) -> int:
        waiting = [self.pending.oldest_arrival, self.intake.oldest_held_arrival, *self.forgotten]
        return min((arrival for arrival in waiting if arrival is not None), default=self.intake.epoch.epoch)

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

    # ---- epochs that are one -----------------------------------------------------------------------------------------

    def group_of(self, group: Group) -> Group:
        """What a sum is called in which this group's deltas are, see `EpochClasses`."""
        return self._classes.group(group)

    def _grouped(self, arrivals: Arrivals) -> Arrivals:
        """What has arrived, by what it is summed in."""
        grouped: Arrivals = {}
        for (group, table), parts in arrivals.items():
            grouped.setdefault((self.group_of(group), table), []).extend(parts)
        return grouped

    def _unite(self, kept: Iterable[int] = ()) -> None:
        """Sum what waits over the states that have been withdrawn, but for those that are to be kept a while.

        Voids are dropped before. The marker that withdraws has been sent, in an earlier transaction.
        """
        withdrawn = self.intake.withdrawn
        for state in kept:
            withdrawn = tuple(without_state(withdrawn, state))
        self._classes = EpochClasses(withdrawn, self.intake.voids, self.settled.epoch)
        self.pending.unite(self.group_of)
        self.forgotten = {self._classes.arrival(arrival) for arrival in self.forgotten}

    def _kept_apart(self) -> set[int]:
        """States between what was forgotten and what was not, which would have to be computed again, too."""
        firsts = sorted({self._classes.arrival(epoch) for epoch in self.intake.unsettled})
        between = {later for one, later in pairwise(firsts) if (one in self.forgotten) != (later in self.forgotten)}
        return between | {*self._recomputing}

    # ---- what was forgotten ------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that a key range which is computed again may take."""
        return self._memory.a_shard // 2

    def recomputable(self) -> int | None:
        """The first arrival epoch of the oldest class with forgotten bulk, if it has ended and nothing of it waits.

        One that is being computed again comes first. None where there is none.
        """
        current = self.intake.epoch.epoch
        arrival = self._recomputing[0] if self._recomputing else min(self.forgotten, default=current)
        if arrival >= current:
            return None
        busy = self.pending.waits(arrival) or self.intake.holds(arrival, self._end_of(arrival))
        # What was computed again before, of another class maybe, must have made room.
        return arrival if not busy and self._memory.has_room(self.pending.nbytes) else None

    def begin_recomputation(self, arrival: int) -> int:
        """Keep this class as it is until `end_recomputation`; the first arrival epoch after it."""
        self._recomputing = arrival, self._end_of(arrival)
        return self._recomputing[1]

    def end_recomputation(self, arrival: int) -> None:
        """All of the class has been computed again, and waits or has been sent."""
        self.forgotten.discard(arrival)
        self._recomputing = ()

    def _end_of(self, arrival: int) -> int:
        later = (epoch for epoch in self.intake.unsettled if self._classes.arrival(epoch) > arrival)
        return next(later, self.intake.epoch.epoch)
