"""Whether stored positions are still in the log: what is gone is never skipped (laws 1 and 9). Pure."""

from collections.abc import Iterable, Mapping

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import ConfigurationError, GapError
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.streams.log import Bounds, Partition


def lost(partition: Partition, position: int, bounds: Bounds) -> GapError | None:
    """Why reading cannot go on at `position`, the next offset to be read; None: it can.

    An empty partition is no loss (low == end == position), however far its offsets have got.
    """
    where = f"{partition.topic}[{partition.number}]"
    if position > bounds.end:
        return GapError(
            f"{where}: position {position} is beyond the log's end {bounds.end}: the log was cut or made anew",
            hint="check which cluster it reads; `ekko restore` another replica's snapshot, or `ekko rewind` to its own",
        )
    if position < bounds.low:
        return GapError(
            f"{where}: position {position} < first offset {bounds.low}, {bounds.low - position} offsets are gone",
            hint="retention has passed it by: `ekko restore` another replica's snapshot, or `ekko rewind` to its own",
        )
    return None


def unseeded(region: RegionDeclaration, model: ModelDeclaration, state: ReplicaState) -> dict[int, GapError]:
    """Shards that a replica without rows cannot begin with: their lanes go on from a seed that it does not have."""
    if not region.is_seeded(model):
        return {}
    return {
        shard: GapError(
            f"{model.name} shard {shard}: the lanes of region {region.name}, made from {region.donor}, go on from a "
            "seed, and this replica is empty",
            hint="`ekko restore` it from the region's seed or a snapshot of another replica",
        )
        for shard, position in state.shards.items()
        if position == ShardPosition()
    }


def check_partition_counts(counts: Mapping[str, int], topics: Iterable[str], shards: int) -> None:
    """Refuse topics that were given another number of partitions: keys would silently move between shards.

    Raises:
        ConfigurationError: naming the topic and both numbers.
    """
    for topic in topics:
        if counts.get(topic, shards) != shards:
            raise ConfigurationError(
                f"topic {topic} has {counts[topic]} partitions, but its model has {shards} shards",
                hint="a model's shards never change: create a new model and move the parameters with export and import",
            )
