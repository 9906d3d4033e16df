"""Source records that nobody can decide about yet: they wait for the catalogue, within a bound in bytes.

Beyond the bound only their offsets are kept; they are read from the source log again when it is time to decide.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from ekko.streams.fanout.admission import OpenEpoch
from ekko.streams.log import Record

Fetch = Callable[[int, int], Iterator[Record]]
"""The shard's source records from one offset to before another, in order."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record, in the epoch in which it arrived; None: it must be read again."""

    offset: int
    epoch: OpenEpoch
    record: Record | None = field(repr=False)


def _nothing(start: int, end: int) -> Iterator[Record]:
    del start, end
    return iter(())


class HeldRecords:
    """The records of one shard that wait: in order of their offsets, those that were handed out and added again last.

    Args:
        bound: bytes of records that may be kept, and that are handed out at a time; whoever reads once needs none.
        fetch: reads those that were not kept.
    """

    def __init__(self, bound: float = math.inf, fetch: Fetch = _nothing) -> None:
        self._bound, self._fetch = bound, fetch
        self._waiting: deque[_Waiting] = deque()
        self.nbytes = 0

    def another(self) -> "HeldRecords":
        """An empty one for the same shard."""
        return HeldRecords(self._bound, self._fetch)

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self, arrival: int) -> bool:
        """Whether a record that arrived in this epoch waits."""
        return any(waiting.epoch.epoch == arrival for waiting in self._waiting)

    @property
    def oldest_arrival(self) -> int | None:
        """The oldest epoch in which a record arrived that waits."""
        return min((waiting.epoch.epoch for waiting in self._waiting), default=None)

    def add(self, record: Record, epoch: OpenEpoch) -> None:
        """Let a record wait; behind those that wait already."""
        size = len(record.value or b"")
        kept = self.nbytes + size <= self._bound
        self.nbytes += size if kept else 0
        self._waiting.append(_Waiting(record.offset, epoch, record if kept else None))

    def take(self, count: int) -> Iterator[tuple[Record, OpenEpoch]]:
        """Hand out some of the first `count`, one at least: those wait no longer unless added again.

        No more than the bound allows, and than can be read again in one go.

        Raises:
            GapError, ConnectionFailed: the source log does not give them again.
        """
        first = self._rising(count)
        gone = [waiting.offset for waiting in first if waiting.record is None]
        again = self._fetch(gone[0], gone[-1] + 1) if gone else iter(())
        handed_bytes = 0
        for waiting in first:
            record = waiting.record
            if record is None:
                record = next(read for read in again if read.offset == waiting.offset)
            else:
                self.nbytes -= len(record.value or b"")
            self._waiting.popleft()
            yield record, waiting.epoch
            handed_bytes += len(record.value or b"")
            if handed_bytes >= self._bound:
                return

    def _rising(self, count: int) -> list[_Waiting]:
        """The first `count` at most, up to where offsets begin anew."""
        first: list[_Waiting] = []
        for waiting in islice(self._waiting, count):
            if first and waiting.offset < first[-1].offset:
                break
            first.append(waiting)
        return first
