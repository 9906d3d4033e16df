"""Stretches of partitions read to their ends, or refused because the log does not hold them any more (law 9)."""

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ekko.schemas.errors import ConnectionFailed, GapError
from ekko.streams.log import Cluster, Partition, Record


class Range(NamedTuple):
    """Offsets start..end-1 of a partition."""

    start: int
    end: int


def read_ranges(
    cluster: Cluster, ranges: Mapping[Partition, Range], timeout_s: float, *, purpose: str
) -> Iterator[Record]:
    """Every committed record of the ranges, each partition in order.

    Args:
        timeout_s: without any record for so long, it is given up.
        purpose: what they are needed for, for the error.

    Raises:
        GapError: some offsets are not in the log any more, or not yet; nothing was read.
        ConnectionFailed: nothing came for `timeout_s`.
    """
    left = {partition: range_ for partition, range_ in ranges.items() if range_.start < range_.end}
    for partition, bound in cluster.bounds(left).items():
        start, end = left[partition]
        if start < bound.low or end > bound.end:
            raise GapError(
                f"{partition.topic}[{partition.number}] holds {bound.low}..{bound.end}, offsets {start}..{end} are "
                f"needed {purpose} ({max(bound.low - start, end - bound.end)} are gone)",
                hint="start the region anew from a donor's snapshot (`ekko region remove`, then `ekko region add`); "
                "nothing was changed, nothing starts from zero",
            )
    reader = cluster.reader()
    try:
        reader.assign({partition: range_.start for partition, range_ in left.items()})
        deadline = time.monotonic() + timeout_s
        while left:
            for record in reader.poll(0.1):
                deadline = time.monotonic() + timeout_s
                if record.partition in left and record.offset < left[record.partition].end:
                    yield record
            done = {at for at, range_ in left.items() if reader.position(at) >= range_.end}
            reader.pause(done)
            left = {at: range_ for at, range_ in left.items() if at not in done}
            if left and time.monotonic() > deadline:
                raise ConnectionFailed(f"no more records of {sorted(left)} came within {timeout_s} s")
    finally:
        reader.close()
