"""Does the store get on? Lags, and a watchdog over them. Pure: time is an argument."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.streams.log import Bounds, Partition


def lane_partitions(state: ReplicaState, region: str) -> list[Partition]:
    """The lane partitions that a replica with this vector reads."""
    return [Partition(topics.lane(state.model, region, lane), shard) for lane in Lane for shard in sorted(state.shards)]


def lags(
    state: ReplicaState, region: str, bounds: Mapping[Partition, Bounds], halted: Container[int]
) -> dict[Lane, int]:
    """Offsets between the applied positions and the ends, a lane each; halted shards are told elsewhere."""
    return {
        lane: sum(
            max(0, bounds[Partition(topics.lane(state.model, region, lane), shard)].end - _offset(position, lane))
            for shard, position in state.shards.items()
            if shard not in halted
        )
        for lane in Lane
    }


def _offset(position: ShardPosition, lane: Lane) -> int:
    return (position.express if lane is Lane.EXPRESS else position.bulk).offset


def progress(state: ReplicaState) -> int:
    """A number that grows with everything applied."""
    return sum(position.express.offset + position.bulk.offset for position in state.shards.values())


@dataclass(slots=True)
class _Seen:
    progress: int
    moved_s: float


class Watchdog:
    """Tells of a model that stands still although there is something to do.

    Args:
        stall_s: how long it may.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._seen: dict[str, _Seen] = {}

    def stalled_s(self, model: str, progress: int, lag: int, stepped_s: float, now_s: float) -> float:
        """Seconds for which a model has stood still beyond what is allowed; 0: it has not.

        Args:
            progress: grows with what was applied. lag: what is left to apply.
            stepped_s: when its apply loop last came round: one that hangs has no excuse, lag or not.
        """
        seen = self._seen.get(model)
        if seen is None or seen.progress != progress or lag == 0:
            seen = self._seen[model] = _Seen(progress, now_s)
        still_s = max(now_s - seen.moved_s, now_s - stepped_s)
        return still_s if still_s > self._stall_s else 0.0

    def forget(self, model: str) -> None:
        """The model is gone."""
        self._seen.pop(model, None)
