"""The readers of a model's lanes at one replica: express first, bulk never starved."""

from collections.abc import Mapping
from itertools import chain

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.streams.log import Cluster, Partition, Record

_TARGET_ROWS = 65_536
"""Rows that one poll of one lane should bring: enough to pay for the numpy calls, and about 20 ms of work at dim 64, so
that express rows never wait longer than that behind bulk ones."""

_MOST_RECORDS = 500

_SLICE_S, _CALM_SLICE_S = 0.002, 0.010
"""While nothing comes, the lanes are waited for in turn, so long each: neither wakes who waits for the other."""

_CALM_AFTER = 10_000
"""Empty rounds, about half a minute, after which slices are long: a replica reads the lanes of idle models, too."""


class Pace:
    """How many records one poll may bring, from the size of those that came before. Pure."""

    def __init__(self) -> None:
        self._rows_a_record = 1_024.0

    @property
    def limit(self) -> int:
        """Records for about `_TARGET_ROWS` rows."""
        return max(1, min(_MOST_RECORDS, int(_TARGET_ROWS / max(1.0, self._rows_a_record))))

    def observe(self, records: int, rows: int) -> None:
        """Take note of what a poll brought."""
        if records:
            self._rows_a_record += 0.2 * (rows / records - self._rows_a_record)


class LaneReaders:
    """One reader a lane, so that neither hides the other's records in its queue; control records come with express.

    Args:
        cluster: the region's.
    """

    def __init__(self, cluster: Cluster, model: str, region: str) -> None:
        self.control = Partition(topics.control(model), 0)
        self._topics = {lane: topics.lane(model, region, lane) for lane in Lane}
        self._lanes = {topic: lane for lane, topic in self._topics.items()}
        self._readers = {lane: cluster.reader() for lane in Lane}
        self._empty_rounds = 0

    def partition(self, lane: Lane, shard: int) -> Partition:
        """A lane's partition of a shard."""
        return Partition(self._topics[lane], shard)

    def partitions(self, shard: int) -> tuple[Partition, Partition]:
        """Express and bulk partition of a shard."""
        return self.partition(Lane.EXPRESS, shard), self.partition(Lane.BULK, shard)

    def lane(self, partition: Partition) -> Lane:
        """The lane that `partition` belongs to; KeyError for the control partition."""
        return self._lanes[partition.topic]

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets, and no others; whatever was fetched is dropped."""
        for lane, reader in self._readers.items():
            reader.assign({p: offset for p, offset in positions.items() if self._reads(p) is lane})

    def poll(self, wait_s: float, limit: int) -> list[Record]:
        """Up to `limit` records of each lane, express first, as soon as there are any. Raises as `Reader.poll`."""
        records = self._poll_both(0.0, limit)
        slice_s = _SLICE_S if self._empty_rounds < _CALM_AFTER else _CALM_SLICE_S
        for _ in range(round(wait_s / (2 * slice_s))):
            if records:
                break
            self._empty_rounds += 1
            records = self._poll_both(slice_s, limit)
        self._empty_rounds = 0 if records else self._empty_rounds
        return records

    def _poll_both(self, wait_s: float, limit: int) -> list[Record]:
        express = self._readers[Lane.EXPRESS].poll(wait_s, limit)
        return list(chain(express, self._readers[Lane.BULK].poll(0.0 if express else wait_s, limit)))

    def position(self, partition: Partition) -> int:
        """See `Reader.position`."""
        return self._readers[self._reads(partition)].position(partition)

    def close(self) -> None:
        """Release the connections."""
        for reader in self._readers.values():
            reader.close()

    def _reads(self, partition: Partition) -> Lane:
        return self._lanes.get(partition.topic, Lane.EXPRESS)
