"""Whether stored positions are still in the log: what is gone is never skipped (laws 1 and 9). Pure."""

from collections.abc import Iterable, Mapping

from ekko.schemas.errors import ConfigurationError, GapError
from ekko.streams.log import Bounds, Partition


def lost(partition: Partition, position: int, bounds: Bounds) -> GapError | None:
    """Why reading cannot go on at `position`, the next offset to be read; None: it can.

    An empty partition is no loss (low == end == position), however far its offsets have got.
    """
    where = f"{partition.topic}[{partition.number}]"
    if position > bounds.end:
        return GapError(
            f"{where}: position {position} is beyond the log's end {bounds.end}: the log was cut or made anew",
            hint="let this replica adopt a peer, or rewind it from a snapshot; check which cluster it reads",
        )
    if position < bounds.low:
        return GapError(
            f"{where}: position {position} < first offset {bounds.low}, {bounds.low - position} offsets are gone",
            hint="retention has passed this replica by: let it adopt a peer, or rewind it from a snapshot",
        )
    return None


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
