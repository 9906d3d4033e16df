"""Computing again what a shard forgot at its memory bound: (all that arrived in an epoch) - (all that was sent of it).

An epoch (or several that are one, see `classes`) is done key range by key range (of mixed keys, so that ranges are
alike), each as large as there is room for. A pass over its stretch of the source log and of the lanes goes on in small
steps beside the normal work.
"""

import logging
from collections.abc import Iterator

from ekko.schemas import topics
from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import is_void
from ekko.schemas.errors import GapError
from ekko.schemas.hashing import UInt64s, splitmix64
from ekko.streams.fanout.context import RegionContext
from ekko.streams.fanout.intake import Arrivals
from ekko.streams.fanout.pending import Group, Pending
from ekko.streams.fanout.rows import Bools, combine
from ekko.streams.fanout.shard import ShardFanout
from ekko.streams.log import Cluster, Partition, Reader, Record

_log = logging.getLogger(__name__)
_RECORDS_A_STEP = 32
_WHOLE = 1 << 64
_FIRST_PARTS = 4
_LEAST_ROWS = 64
"""A range is never smaller, whatever the bound: it must end some day."""


class Recomputation:
    """One class of arrival epochs of one shard, computed again range by range; `arrival` is the first of them.

    Each range goes to what waits in the shard when it is complete, and the next one begins when it has been sent.
    """

    def __init__(self, context: RegionContext, model: ModelDeclaration, shard: ShardFanout, arrival: int) -> None:
        self._context, self._model, self._shard = context, model, shard
        self.arrival, self._end = arrival, shard.begin_recomputation(arrival)
        self._low, self._size = 0, _WHOLE // _FIRST_PARTS
        self._reader: Reader | None = None
        self._steps: Iterator[None] | None = None
        self._found, self._overflown = Pending(), False
        self.finished = False
        _log.info("%s, shard %d: computing epochs %d to %d again", model.name, shard.shard, arrival, self._end - 1)

    def step(self) -> bool:
        """Go on for a moment; returns whether anything was done.

        Raises:
            GapError: the log does not hold the epoch any more; nothing was changed.
        """
        if self._steps is None:
            if self._shard.recomputable() != self.arrival:
                return False  # the last range is still being sent
            self._found, self._overflown = Pending(), False
            self._steps = self._pass()
        try:
            next(self._steps)
        except StopIteration:
            self._end_pass()
        return True

    def close(self) -> None:
        """Release the connection."""
        if self._reader is not None:
            self._reader.close()
        self._reader = self._steps = None

    def _end_pass(self) -> None:
        self.close()
        if self._overflown:
            self._size = max(self._size // 2, 1)
            return
        self._found.drop(self._shard.intake.voids)
        used = self._found.nbytes
        self._found.drop_empty(self._shard.intake.epoch.epoch)  # what had all been sent would only take room
        self._shard.pending.adopt(self._found)
        self._low += self._size
        if 4 * used < self._shard.room:
            self._size *= 2
        if self._low >= _WHOLE:
            self._shard.end_recomputation(self.arrival)
            self.finished = True

    def _in_range(self, keys: UInt64s) -> Bools:
        mixed = splitmix64(splitmix64(keys))  # once mixed they all belong to one shard, so they are not uniform
        last = min(self._low + self._size, _WHOLE) - 1
        in_range: Bools = (mixed >= self._low) & (mixed <= last)
        return in_range

    def _pass(self) -> Iterator[None]:
        """One key range: the source first, then the lanes. Yields between small pieces of work."""
        intake = self._shard.intake.at_epoch(self.arrival)
        source = Partition(topics.deltas(self._model.name), self._shard.shard)
        start, end = intake.position, self._shard.intake.settled(self._end).offset
        for records in self._read(self._context.central, source, start, end):
            for record in records:
                intake.read(record)
            for arrivals in intake.take_arrivals(self._context.catalogue.end):
                self._overflown = not self._collect(arrivals)
                if self._overflown:
                    return
                yield
            intake.refusals = []
        for lane in Lane:
            topic = topics.lane(self._model.name, self._context.region.name, lane)
            start, end = self._shard.sequencer.lane_range(lane, self.arrival)
            for records in self._read(self._context.regional, Partition(topic, self._shard.shard), start, end):
                for record in records:
                    self._subtract(record)
                yield

    def _collect(self, arrivals: Arrivals) -> bool:
        """Add what was read to what was found; False where there is no room for it."""
        for (arrived, table), parts in arrivals.items():
            group, updates = self._shard.group_of(arrived), combine(parts)
            updates = updates.select(self._in_range(updates.keys))
            large = self._found.rows + len(updates) > _LEAST_ROWS
            if large and self._found.nbytes_with(group, table, updates) > self._shard.room:
                return False
            if len(updates):
                self._found.add(group, table, updates)
        return True

    def _subtract(self, record: Record) -> None:
        block = self._context.catalogue.decode(record.value)
        if not isinstance(block, LaneBlock) or not self.arrival <= block.arrival < self._end or not len(block.keys):
            return
        mine = self._in_range(block.keys)
        if mine.any() and not is_void(block.effective, self._shard.intake.voids):
            group = self._shard.group_of(Group(block.arrival, block.effective))
            self._found.subtract(group, block.table, block.keys[mine], block.deltas[mine])

    def _read(self, cluster: Cluster, partition: Partition, start: int, end: int) -> Iterator[list[Record]]:
        """Committed records from `start` to before `end`, some at a time; empty lists while they are on their way."""
        low = cluster.bounds([partition])[partition].low
        if start < low:
            raise GapError(
                f"{partition.topic}[{partition.number}] begins at {low}, {start} is needed to compute epoch "
                f"{self.arrival} again ({low - start} offsets are gone)",
                hint="start the region anew from a donor's snapshot; nothing was changed",
            )
        if start >= end:
            return
        self._reader = cluster.reader()
        self._reader.assign({partition: start})
        while self._reader.position(partition) < end:
            yield [record for record in self._reader.poll(0.0, _RECORDS_A_STEP) if record.offset < end]
        self._reader.close()
        self._reader = None
