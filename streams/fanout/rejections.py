"""Reading a region's rejected topic: what was refused there, and why."""

from collections.abc import Iterator

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.errors import TopicMissing
from ekko.schemas.signals import Rejection
from ekko.streams.log import Cluster, Partition, Record, read_range


class RejectedTopic:
    """The rejections of one model in one region, each source record once.

    Raises:
        TopicMissing: no such model in this region (when it is first read).
    """

    def __init__(self, cluster: Cluster, model: str, region: str) -> None:
        self._cluster = cluster
        self._topic = topics.rejected(model, region)
        self._codec = Codec()
        self._seen: set[tuple[int, int]] = set()

    def read(self) -> list[Rejection]:
        """What has been refused so far, in order of shard and offset."""
        ends = {partition: bounds.low for partition, bounds in self._cluster.bounds(self._partitions()).items()}
        return self._new(read_range(self._cluster, ends))

    def follow(self, poll_s: float = 0.5) -> Iterator[list[Rejection]]:
        """What has been refused so far and from now on; an empty list after every `poll_s` in which nothing came."""
        reader = self._cluster.reader()
        try:
            bounds = self._cluster.bounds(self._partitions())
            reader.assign({partition: bound.low for partition, bound in bounds.items()})
            while True:
                yield self._new(reader.poll(poll_s))
        finally:
            reader.close()

    def _partitions(self) -> list[Partition]:
        count = self._cluster.topics().get(self._topic)
        if count is None:
            raise TopicMissing(f"topic {self._topic} does not exist", hint="check the names of model and region")
        return [Partition(self._topic, number) for number in range(count)]

    def _new(self, records: list[Record]) -> list[Rejection]:
        found = []
        for record in records:
            message = self._codec.decode(record.value)
            # Compaction comes late, and a fan-out that was killed may have written a rejection twice.
            if isinstance(message, Rejection) and (message.shard, message.offset) not in self._seen:
                self._seen.add((message.shard, message.offset))
                found.append(message)
        return found
