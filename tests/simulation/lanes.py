"""A region's lanes and rejections as they stand in the log, decoded once for all checks."""

from dataclasses import dataclass

from ekko.schemas import topics
from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.signals import Rejection
from ekko.streams.log import Partition
from ekko.streams.memory.broker import MemoryBroker
from tests.simulation.truth import Origin, committed, decoded


@dataclass(frozen=True, slots=True)
class Sent:
    """A committed lane record."""

    lane: Lane
    offset: int
    block: LaneBlock


@dataclass(frozen=True, slots=True)
class RegionLog:
    """All that a region's fan-out has committed.

    Attributes:
        shards: records of both lanes by shard, in order of seq.
        rejected: reason by origin of the refused source record.
    """

    region: str
    shards: list[list[Sent]]
    rejected: dict[Origin, str]


def read_region(broker: MemoryBroker, model: str, region: str, shards: int) -> RegionLog:
    """Decode a region's committed records, those that retention has removed included."""
    by_shard: list[list[Sent]] = []
    rejected: dict[Origin, str] = {}
    for shard in range(shards):
        sent: list[Sent] = []
        for lane in Lane:
            for record in committed(broker, Partition(topics.lane(model, region, lane), shard)):
                block = decoded(record.value)
                assert isinstance(block, LaneBlock), f"{record} is no lane block"
                sent.append(Sent(lane, record.offset, block))
        by_shard.append(sorted(sent, key=lambda entry: entry.block.seq))
    topic = topics.rejected(model, region)
    for number in range(broker.partition_counts()[topic]):
        for record in committed(broker, Partition(topic, number)):
            message = decoded(record.value)
            assert isinstance(message, Rejection), f"{record} is no rejection"
            rejected[message.shard, message.offset] = message.reason
    return RegionLog(region, by_shard, rejected)
