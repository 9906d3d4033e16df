"""What comes into a model's source log from now on, read as it comes: for those who wait for a moment that is short."""

import time
from collections.abc import Callable
from typing import Self

from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition

PATIENCE_S = 60.0


class SourceTail:
    """Reads on from where the log ends now; a context manager."""

    def __init__(self, cluster: KafkaCluster, topic: str) -> None:
        partitions = [Partition(topic, number) for number in range(cluster.topics()[topic])]
        self._reader, self._codec = cluster.reader(), Codec()
        self._reader.assign({partition: bounds.end for partition, bounds in cluster.bounds(partitions).items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def await_blocks(self, count: int, matching: Callable[[DeltaBlock], bool]) -> None:
        """Return once so many blocks have come."""
        deadline = time.monotonic() + PATIENCE_S
        while count > 0:
            assert time.monotonic() < deadline, f"{count} more did not come"
            decoded = (self._codec.decode(record.value) for record in self._reader.poll(0.01))
            count -= sum(isinstance(block, DeltaBlock) and matching(block) for block in decoded)
