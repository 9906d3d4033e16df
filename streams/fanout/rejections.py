"""A region's rejected topic: what was refused there, and why; written by fan-outs, read by `ekko rejected`."""

from collections.abc import Iterator

from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import TopicMissing
from ekko.schemas.signals import Rejection
from ekko.streams.fanout.admission import Reason
from ekko.streams.fanout.intake import Refusal
from ekko.streams.log import Cluster, Output, Partition, Record, read_range


def rejected(refusal: Refusal, model: ModelDeclaration, region: str, shard: int, now_us: int) -> Output:
    """The record that tells of a refusal; `now_us` in microseconds since 1970."""
    record, why = refusal.record, refusal.why
    assert model.incarnation is not None
    rejection = Rejection(
        model=model.name,
        incarnation=model.incarnation,
        shard=shard,
        offset=record.offset,
        reason=why.reason,
        detail=why.detail,
        trainer=why.trainer,
        table=why.table,
        rejected_us=now_us,
        # Blocks of an old generation are many after a rollback, and nobody wants them back.
        record=None if why.reason is Reason.OLD_GENERATION else record.value,
    )
    topic = topics.rejected(model.name, region)
    return Output(Partition(topic, shard), encode(rejection), f"{shard}:{record.offset}".encode())


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
