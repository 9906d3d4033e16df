"""A trainer's input position in the source log: where it is put, and how it is found again.

Every publish with a position puts it, among others, into one partition, chosen by the trainer's name, so that one
partition, read backwards, has the answer.
"""

import time
from dataclasses import dataclass, replace

from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec
from ekko.schemas.errors import ConnectionFailed, FormatError, GapError
from ekko.schemas.hashing import table_seed
from ekko.streams.log import Cluster, Partition, Record

_FIRST_WINDOW, _LAST_WINDOW = 64, 4_096


def position_shard(trainer: str, shards: int) -> int:
    """The partition in which a trainer's positions stand."""
    return table_seed(trainer) % shards


def with_position(blocks: list[DeltaBlock], template: DeltaBlock, shards: int) -> list[DeltaBlock]:
    """`blocks`, which carry the position, and one without rows if none of them goes where it is looked for."""
    shard = position_shard(template.trainer, shards)
    if any(block.shard == shard for block in blocks):
        return blocks
    return [*blocks, replace(template, shard=shard)]


@dataclass(frozen=True, slots=True)
class PositionSearch:
    """Looks for the last position of `trainer` in `partition` of the model with `incarnation`."""

    cluster: Cluster
    partition: Partition
    codec: Codec
    trainer: str
    incarnation: int
    timeout_s: float

    def before(self, end: int) -> bytes | None:
        """The position in the last record before offset `end` that carries one; None: there is none.

        Reads windows of growing size from the end, so a trainer that restarts soon is answered soon.

        Raises:
            GapError: nothing was found, and the beginning of the log is gone.
            ConnectionFailed: `end` is not readable, or the search not done, in time.
        """
        deadline = time.monotonic() + self.timeout_s
        low = self._await_readable(end, deadline)
        size, stop = _FIRST_WINDOW, end
        while stop > low:
            start = max(low, stop - size)
            found = self._last_in(start, stop, deadline)
            if found is not None:
                return found
            stop, size = start, min(2 * size, _LAST_WINDOW)
        if low > 0:
            raise GapError(
                f"{self.partition.topic}[{self.partition.number}] holds no position of {self.trainer} from {low} on, "
                "and what was before is gone",
                hint="a trainer that is new to this model does not ask; an old one needs a position from elsewhere",
            )
        return None

    def _await_readable(self, end: int, deadline: float) -> int:
        """Wait until all before `end` is decided (others' transactions may be open); returns the low offset."""
        while True:
            bounds = self.cluster.bounds([self.partition])[self.partition]
            if bounds.end >= end:
                return bounds.low
            self._check(deadline, bounds.end)
            time.sleep(0.02)

    def _last_in(self, start: int, stop: int, deadline: float) -> bytes | None:
        found: bytes | None = None
        reader = self.cluster.reader()
        try:
            reader.assign({self.partition: start})
            while reader.position(self.partition) < stop:
                for record in reader.poll(0.1):
                    position = self._position_in(record) if record.offset < stop else None
                    found = found if position is None else position
                self._check(deadline, reader.position(self.partition))
        finally:
            reader.close()
        return found

    def _position_in(self, record: Record) -> bytes | None:
        try:
            block = self.codec.decode(record.value)
        except FormatError:
            return None
        ours = isinstance(block, DeltaBlock) and (block.trainer, block.incarnation) == (self.trainer, self.incarnation)
        return block.trainer_position if ours else None

    def _check(self, deadline: float, at: int) -> None:
        if time.monotonic() > deadline:
            raise ConnectionFailed(
                f"the last position was not found in {self.timeout_s} s: {self.partition.topic}"
                f"[{self.partition.number}] is read to offset {at}",
                hint="give last_position a longer timeout_s, or the trainer its position from elsewhere",
            )
