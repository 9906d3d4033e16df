"""Reading one shard of the source log: epochs, voids, blocks that must wait for the catalogue, and what arrived."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import Barrier, EpochRange, Settled, is_void
from ekko.schemas.errors import GapError
from ekko.streams.fanout.admission import Admission, Admitted, OpenEpoch, Refused, Undecided
from ekko.streams.fanout.held import HeldRecords
from ekko.streams.fanout.pending import Group
from ekko.streams.fanout.rows import RowUpdates
from ekko.streams.fanout.trainers import Heard
from ekko.streams.log import Record

if TYPE_CHECKING:
    from ekko.schemas.declarations import TableDeclaration

Arrivals = dict[tuple[Group, str], list[RowUpdates]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A source record that is refused, and why."""

    record: Record = field(repr=False)
    why: Refused


class Intake:
    """Takes source records in offset order and gives what became of them to its owner.

    Attributes:
        position: source offset (end) read so far.
        epoch: what is in force there.
        voids: all voids known.
        withdrawn: states that the barrier before the last one withdraws: by now its marker has long been sent.
        tables: declarations of the tables of all that arrived so far.
        arrivals, barriers, refusals: what came since the owner last took them.
    """

    def __init__(
        self, admission: Admission, held: HeldRecords | None = None, *, voids: tuple[EpochRange, ...] = ()
    ) -> None:
        self._admission = admission
        self._opened: dict[int, tuple[OpenEpoch, Settled]] = {}
        self._held = HeldRecords() if held is None else held
        self._undecided, self._catalogue_end = 0, -1
        self.position = 0
        self.epoch = admission.first
        self.voids = voids
        self.withdrawn: tuple[EpochRange, ...] = ()
        self._withdrawn_next: tuple[EpochRange, ...] = ()
        self.tables: dict[str, TableDeclaration] = {}
        self.arrivals: Arrivals = {}
        self.barriers: list[Barrier] = []
        self.refusals: list[Refusal] = []
        self.dropped_rows = 0
        self._heard: dict[str, Heard] = {}
        self._opened[0] = self.epoch, Settled()

    def start_at(self, record: Record, settled: Settled) -> None:
        """Begin just after the settled barrier, which `record` must be.

        Raises:
            GapError: it is another record.
        """
        barrier = self._admission.judge(record, self.epoch)
        if not isinstance(barrier, Barrier) or (barrier.epoch, barrier.generation) != settled[1:]:
            raise GapError(
                f"{_place(record)}: expected the barrier that opens epoch {settled.epoch}, found {barrier!r}",
                hint="the source log is not the one that the fan-out state was written for; nothing was changed",
            )
        self.epoch = OpenEpoch.of(barrier)
        self._opened = {settled.epoch: (self.epoch, settled)}
        self.position = settled.offset
        self._withdrawn_next = barrier.withdrawn
        self._learn_voids(barrier)

    def at_epoch(self, epoch: int) -> "Intake":
        """Another one at the beginning of an epoch that has ended, to read it again with what is known now."""
        again = Intake(self._admission, self._held.another(), voids=self.voids)
        again.epoch, settled = self._opened[epoch]
        again.position = settled.offset
        again._opened = {opened: entry for opened, entry in self._opened.items() if opened >= epoch}
        return again

    @property
    def held(self) -> int:
        """Records that wait for the catalogue."""
        return len(self._held)

    def holds(self, first: int, end: int) -> bool:
        """Whether a record that arrived in epochs first..end-1 waits for the catalogue."""
        return any(self._held.holds(arrival) for arrival in range(first, end))

    @property
    def oldest_held_arrival(self) -> int | None:
        """The oldest epoch in which a record arrived that waits for the catalogue."""
        return self._held.oldest_arrival

    @property
    def unsettled(self) -> list[int]:
        """The epochs that are not settled, the current one included, rising."""
        return sorted(self._opened)

    def settled(self, epoch: int) -> Settled:
        """The barrier that opened `epoch`, which is the current one or not settled yet."""
        return self._opened[epoch][1]

    def forget_before(self, epoch: int) -> None:
        """Everything that arrived before `epoch` is settled."""
        self._opened = {opened: entry for opened, entry in self._opened.items() if opened >= epoch}

    def read(self, record: Record) -> bool:
        """Take the next source record; returns whether it was a barrier.

        Raises:
            FormatTooNew: it needs newer software; it was not taken.
            GapError: a barrier that is not the next one, or a record that comes out of order; it was not taken.
        """
        if record.offset < self.position:
            raise GapError(
                f"{_place(record)} comes after offset {self.position - 1} was read",
                hint="restart the fan-out: it reads on from what was committed; if it lasts, check the broker's logs",
            )
        verdict = self._admission.judge(record, self.epoch)
        if isinstance(verdict, Barrier):
            self._open(verdict, record)
        elif isinstance(verdict, Undecided):
            self._held.add(record, self.epoch)
        else:
            self._decided(verdict, record, self.epoch)
        self.position = record.offset + 1
        return isinstance(verdict, Barrier)

    def take_arrivals(self, catalogue_end: int) -> Iterator[Arrivals]:
        """What arrived, with every held record that can be decided now; in parts, as large as held records may be.

        Raises:
            As `reconsider`.
        """
        while True:
            self.reconsider(catalogue_end)
            arrivals, self.arrivals = self.arrivals, {}
            yield arrivals
            if not self._undecided:
                return

    def reconsider(self, catalogue_end: int) -> None:
        """Decide about held records, now that the catalogue is read up to `catalogue_end`; some of them at a time.

        Raises:
            GapError, ConnectionFailed: see `HeldRecords.take`; a barrier among them.
        """
        if catalogue_end != self._catalogue_end:
            self._undecided, self._catalogue_end = len(self._held), catalogue_end
        for record, epoch in self._held.take(self._undecided):
            self._undecided -= 1
            first = epoch.epoch
            barriers = [self._opened[known][0] for known in range(first, first + 3) if known in self._opened]
            verdict = self._admission.judge(record, epoch, barriers[-1].catalogue_end)
            if isinstance(verdict, Undecided) and len(barriers) == 3:
                verdict = self._final(verdict, barriers[-1].catalogue_end, catalogue_end)
            if isinstance(verdict, Undecided):
                self._held.add(record, epoch)
            elif isinstance(verdict, Barrier):
                # Its place in the log has passed, so the epochs of everything after it are wrong.
                raise GapError(
                    f"{_place(record)}: a barrier whose writer schema was not known when it was read",
                    hint="restart the fan-out: it reads the source again from the settled barrier",
                )
            else:
                self._decided(verdict, record, epoch)

    def _final(self, verdict: Undecided, bound: int, catalogue_end: int) -> Undecided | Refused:
        """What the barrier after next, which tells that the catalogue had reached `bound`, makes of a record."""
        unknown = catalogue_end >= bound if verdict.catalogue is None else verdict.catalogue > bound
        return verdict.refusal() if unknown else verdict

    def take_heard(self) -> dict[str, Heard]:
        """The trainers of blocks that were admitted since the last call."""
        heard, self._heard = self._heard, {}
        return heard

    def _decided(self, verdict: Admitted | Refused, record: Record, epoch: OpenEpoch) -> None:
        if isinstance(verdict, Admitted) and verdict.block.purpose is Purpose.TRAIN:
            block = verdict.block
            self._heard[block.trainer] = self._heard.get(block.trainer, Heard()).plus(Heard(1, block.published_us))
        if isinstance(verdict, Refused):
            self.refusals.append(Refusal(record, verdict))
        elif is_void(verdict.effective, self.voids):
            self.dropped_rows += len(verdict.block.keys)
        elif len(verdict.block.keys):
            group = Group(epoch.epoch, verdict.effective)
            self.tables[verdict.table.name] = verdict.table
            self.arrivals.setdefault((group, verdict.block.table), []).append(_updates(verdict))

    def _open(self, barrier: Barrier, record: Record) -> None:
        if barrier.epoch != self.epoch.epoch + 1:
            raise GapError(
                f"{_place(record)}: the barrier opens epoch {barrier.epoch}, expected {self.epoch.epoch + 1}",
                hint="two state managers may have written without fencing; the shard stands still, nothing was changed",
            )
        self.epoch = OpenEpoch.of(barrier)
        self._opened[barrier.epoch] = self.epoch, Settled(record.offset + 1, barrier.epoch, barrier.generation)
        self.withdrawn, self._withdrawn_next = self._withdrawn_next, barrier.withdrawn
        self._learn_voids(barrier)
        self.barriers.append(barrier)
        self._catalogue_end = -1  # the barrier may decide about what is held

    def _learn_voids(self, barrier: Barrier) -> None:
        # A barrier carries all voids in full and they only grow; a takeover knows later ones than those it reads again.
        if len(barrier.voids) > len(self.voids):
            self.voids = barrier.voids
            self.arrivals = {
                at: parts for at, parts in self.arrivals.items() if not is_void(at[0].effective, self.voids)
            }


def _updates(admitted: Admitted) -> RowUpdates:
    block = admitted.block
    count = len(block.keys)
    step = 2.0**-admitted.table.fraction_bits
    created = np.zeros(count, np.bool_) if block.created is None else block.created
    published_us, learnt = np.full(count, block.published_us), block.purpose is Purpose.TRAIN
    return RowUpdates(block.keys, block.deltas, created, published_us, block.catalogue, step, learnt)


def _place(record: Record) -> str:
    return f"{record.partition.topic}[{record.partition.number}] offset {record.offset}"
