"""What an applier tells of the blocks that have become readable."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ekko.schemas.blocks import Lane, LaneBlock


class Applied(NamedTuple):
    """A lane block whose rows are readable; `recovering`: read to catch up after the start."""

    lane: Lane
    block: LaneBlock
    recovering: bool


class AppliedObserver(Protocol):
    """Told of everything that has become readable."""

    def applied(self, lane: Lane, rows: int, latencies_ms: list[float], *, recovering: bool) -> None:
        """Blocks of one lane with `rows` rows in all.

        Args:
            latencies_ms: publish -> readable, of each block whose time of publishing is believable.
        """


_MAX_AWAY_US = 86_400 * 1_000_000
"""A time of publishing further from now is a wrong clock's or a fault's: it would spoil the maximum."""


def tell(observer: AppliedObserver, applied: Sequence[Applied], now_us: float) -> None:
    """Tell `observer` of blocks that became readable at `now_us` (microseconds since 1970); markers are left out."""
    groups: dict[tuple[Lane, bool], list[LaneBlock]] = {}
    for lane, block, recovering in applied:
        if len(block.keys):
            groups.setdefault((lane, recovering), []).append(block)
    for (lane, recovering), blocks in groups.items():
        # Clocks of two machines may differ; a row is never readable before it was published.
        latencies = [max(0.0, (now_us - block.published_us) / 1e3) for block in blocks if _is_known(block, now_us)]
        observer.applied(lane, sum(len(block.keys) for block in blocks), latencies, recovering=recovering)


def _is_known(block: LaneBlock, now_us: float) -> bool:
    return block.published_us > 0 and abs(now_us - block.published_us) <= _MAX_AWAY_US
