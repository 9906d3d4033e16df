"""Applies one model's lanes to its store at one replica, exactly once.

The store's own positions are the truth: rows, journals, voids and positions become durable together, and after a crash
reading goes on from there. One step reads what is there, merges it, applies it and notes how far it got; what must not
be applied halts its shard with an error that names the numbers, while the other shards go on.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import (
    BadInput,
    ConfigurationError,
    ConnectionFailed,
    EkkoError,
    FormatTooNew,
    GapError,
    MemoryExhausted,
    StateUnavailable,
    StoreUnwritable,
)
from ekko.schemas.replicas import Undone
from ekko.storage.store import Store
from ekko.streams.applier.applied import Applied, AppliedObserver, tell
from ekko.streams.applier.bounds import check_partition_counts, unseeded
from ekko.streams.applier.instructions import Instructions
from ekko.streams.applier.intake import CatalogueView, LaneIntake
from ekko.streams.applier.progress import ShardProgress
from ekko.streams.applier.readers import LaneReaders, Pace
from ekko.streams.applier.rows import merge
from ekko.streams.log import Cluster, Record, read_range

_log = logging.getLogger("ekko.store")

_HALTING = (GapError, FormatTooNew, ConfigurationError, BadInput)
"""What stops a shard: its rows stay exact as of its position, and going on would make them wrong."""


class Applier:
    """The apply loop's body; one thread calls `step`. Attributes may be read by others: they are replaced, not changed.

    Args:
        cluster: the region's.
        store: the model's, opened with the shards that this replica owns; closed by who opened it.
        catalogue: reached before a block that names more of it is applied.
        clock: seconds since 1970, for latencies.
        witness: see `Instructions`.

    Attributes:
        model: declaration with the tables that the store has.
        state: the version vector that the rows contain.
        halted: shard -> why it stands still.
        stopped: why the whole model stands still (its memory bound, a void it cannot undo); nothing is flushed then.
        unwritable: why the last flush failed; None once one succeeds.
    """

    def __init__(
        self,
        cluster: Cluster,
        region: RegionDeclaration,
        model: ModelDeclaration,
        store: Store,
        catalogue: CatalogueView,
        *,
        observer: AppliedObserver | None = None,
        clock: Callable[[], float] = time.time,
        witness: int | None = None,
    ) -> None:
        self.model = model
        self.state = store.state
        self.halted: Mapping[int, EkkoError] = {}
        self.stopped: EkkoError | None = None
        self.unwritable: StoreUnwritable | None = None
        self._cluster = cluster
        self._store = store
        self._catalogue = catalogue
        self._observer = observer
        self._clock = clock
        self._readers = LaneReaders(cluster, model.name, region.name)
        self._intake = LaneIntake(catalogue, store.state.incarnation, store.state.region_incarnation)
        self._progress = ShardProgress(self._readers, store.state)
        self._instructions = Instructions(store, model.name, clock, witness=witness)
        self._unseeded = unseeded(region, model, store.state)
        self._pace = Pace()
        self._held: deque[Record] = deque()
        self._tables_as_of = -1
        self._started = False
        self._assign_again = True
        self._idle = False

    @property
    def unserved(self) -> frozenset[int]:
        """Owned shards whose rows are not to be read: not yet caught up, or halted before they had."""
        return self._progress.catching_up

    @property
    def ready(self) -> bool:
        """Whether rows may be read: the shards that are not halted, one at least, were read to the ends of the start.

        With a void that it cannot undo a replica stops serving.
        """
        waiting = self.unserved
        caught_up = len(waiting) < len(self._progress.orders) and waiting <= self.halted.keys()
        return self._started and caught_up and not isinstance(self.stopped, StateUnavailable)

    @property
    def served(self) -> int | None:
        """The pinned state that readers get in place of the live rows; None for the live ones."""
        return self._instructions.served

    @property
    def undone(self) -> tuple[Undone, ...]:
        """The last voids undone since the start."""
        return self._instructions.undone

    @property
    def foreign(self) -> int:
        """Records skipped because they are none of ours."""
        return self._intake.foreign

    def step(self, now_s: float, wait_s: float = 0.0) -> bool:
        """Read, apply and note what has come; whether there was anything.

        Args:
            now_s: for the flush interval.
            wait_s: how long to wait for express records when the last step found nothing.

        Raises:
            ConnectionFailed, TopicMissing: the cluster cannot be read.
            ConfigurationError: a lane has another number of partitions than the model has shards.
        """
        if self.stopped is not None:
            return False
        if not self._started:
            self._start()
        if not self._held:
            self._poll(wait_s if self._idle else 0.0)
        self._idle = not self._held
        self._take_held()
        if self.stopped is None:
            self._note_progress()
            self._flush(now_s)
        return not self._idle

    def read_anew(self) -> None:
        """Assign the lanes again with the next step; any thread may ask for it."""
        self._assign_again = True

    def close(self) -> None:
        """Make everything applied durable, where that is right, and release the readers."""
        self._readers.close()
        if self._started and self.stopped is None:
            self._store.flush(self.state)

    def _start(self) -> None:
        """Learn and undo every committed void, refuse positions that are gone, and read on from the others."""
        self._add_tables()
        topics = {partition.topic for partition in self._progress.lanes}
        check_partition_counts(self._cluster.topics(), topics, self.model.shards)
        control = self._readers.control
        bounds = self._cluster.bounds([*self._progress.lanes, control])
        self._progress.read_control_from(bounds[control].low)
        for record in read_range(self._cluster, {control: bounds[control].low}):
            self._take_control(record)
        self._apply([])
        for shard, error in {**self._progress.lost(bounds, self.halted), **self._unseeded}.items():
            self._halt(shard, error)
        self._progress.begin(bounds)
        self._assign_if_changed()
        self._started = True

    def _poll(self, wait_s: float) -> None:
        try:
            self._assign_if_changed()
            self._held.extend(self._readers.poll(wait_s, self._pace.limit))
        except EkkoError as error:
            # What this poll had already taken from the other lane is read again from the positions applied.
            self._assign_again = True
            if not isinstance(error, GapError):
                raise
            _log.warning("%s: %s", self.model.name, error)
            self._halt_lost()

    def _halt_lost(self) -> None:
        control = self._readers.control
        bounds = self._cluster.bounds([*self._progress.lanes, control])
        for shard, reason in self._progress.lost(bounds, self.halted).items():
            self._halt(shard, reason)
        # The control record is only the latest one of its key, and says nothing that the barriers do not.
        self._progress.read_control_from(bounds[control].low)

    def _take_held(self) -> None:
        applied: list[Applied] = []
        while self._held:
            try:
                self._take(self._held[0], applied)
            except ConnectionFailed as error:  # its catalogue is not reached yet: it stays first in line
                _log.info("%s waits: %s", self.model.name, error)
                break
            self._held.popleft()
        self._apply(applied)

    def _take(self, record: Record, applied: list[Applied]) -> None:
        shard = record.partition.number
        if record.partition == self._readers.control:
            self._take_control(record)
        elif shard not in self.halted:
            try:
                self._take_block(record, applied)
            except _HALTING as error:
                self._halt(shard, error)
            else:
                self._progress.passed(record)

    def _take_block(self, record: Record, applied: list[Applied]) -> None:
        shard, lane = record.partition.number, self._readers.lane(record.partition)
        block = self._intake.block(record)
        if block is None:
            return
        if self._tables_as_of != self._catalogue.end:
            self._add_tables()
        if len(block.keys) and block.deltas.shape[1] != self.model.table(block.table).dim:
            raise BadInput(f"{lane} seq {block.seq}: rows of dim {block.deltas.shape[1]} for table {block.table}")
        self._progress.orders[shard].accept(lane, block, record.offset, record.leader_epoch)
        if block.barrier is not None:
            self._instructions.learn(block.barrier)
        applied.append(Applied(lane, block, shard in self.unserved))

    def _take_control(self, record: Record) -> None:
        try:
            barrier = self._intake.barrier(record)
        except FormatTooNew as error:
            for shard in self._progress.orders:
                self._halt(shard, error)
            return
        self._progress.passed(record)
        if barrier is not None:
            self._instructions.learn(barrier)

    def _add_tables(self) -> None:
        """Give the store what the catalogue has gained."""
        declared = self._catalogue.models.get(self.model.name)
        self._tables_as_of = self._catalogue.end
        if declared is not None and declared.incarnation == self.state.incarnation:
            for table in declared.tables:
                self._store.add_table(table)
            self.model = declared

    def _apply(self, applied: list[Applied]) -> None:
        """Undo first, so that rows of void epochs are not even added; in any order the rows come out the same."""
        try:
            self._instructions.carry_out()
            for _, block, _ in applied:
                self._instructions.refuse_mixed(block)
            for rows in merge(block for _, block, _ in applied):
                self._store.apply(*rows)
        except (MemoryExhausted, StateUnavailable) as error:
            self._stop(error)
            return
        self._pace.observe(len(applied), sum(len(block.keys) for _, block, _ in applied))
        if self._observer is not None and applied:
            tell(self._observer, applied, self._clock() * 1e6)

    def _assign_if_changed(self) -> None:
        if self._assign_again:
            self._readers.assign(self._progress.positions(self.halted))
            self._assign_again = False

    def _halt(self, shard: int, error: EkkoError) -> None:
        _log.error("%s: shard %d halts: %s (%s)", self.model.name, shard, error, error.hint)
        self.halted = {**self.halted, shard: error}
        self._assign_again = True

    def _stop(self, error: EkkoError) -> None:
        """Stand still for good: some of what was just read is applied, so no position would be right to flush."""
        _log.error("%s stops: %s", self.model.name, error)
        self.stopped = error
        self.halted = dict.fromkeys(self._progress.orders, error)

    def _note_progress(self) -> None:
        if not self._held:
            self._assign_if_changed()
            self._progress.follow_readers(self.halted)
        self.state = self._progress.state(self._catalogue.end, self._store.voids, self._store.bound)

    def _flush(self, now_s: float) -> None:
        try:
            self._store.keep_voids()  # a rollback counts as done only once it is durable everywhere
            flushing = self._store.flushing
            if self._store.poll_flush() and flushing:
                self.unwritable = None
            first = self._store.flushed is None and bool(self.state.voids)  # they are kept beside what was flushed
            if (self._store.flush_due(now_s) or first) and self.state != self._store.flushed:
                self._store.begin_flush(self.state)
        except StoreUnwritable as error:
            _log.error("%s: a flush failed and is tried again: %s", self.model.name, error)
            self.unwritable = error
