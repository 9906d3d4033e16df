"""Reader of committed records on a confluent consumer."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from ekko.schemas.errors import GapError
from ekko.streams.kafka.said import log
from ekko.streams.kafka.trouble import (
    END_OF_PARTITION,
    FOR_GOOD,
    MISSING,
    OUT_OF_RANGE,
    SLICE_S,
    ClientErrors,
    topic_missing,
)
from ekko.streams.log import Bounds, Partition, Record

GROUP = "ekko-assigned-by-hand"
"""Nobody ever joins it, but librdkafka asks for its coordinator: where rights are checked, READ on it is needed."""

_LEAST_WAIT_S = 0.001
"""librdkafka waits whole milliseconds: what is left over would be spent asking it again and again."""

_BoundsOf = Callable[[Iterable[Partition]], dict[Partition, Bounds]]


class KafkaReader:
    """`streams.log.Reader` on a confluent consumer that never joins a group."""

    def __init__(self, settings: dict[str, Any], errors: ClientErrors, bounds: _BoundsOf) -> None:
        self._errors = errors
        self._bounds = bounds
        self._positions: dict[Partition, int] = {}
        self._troubles: list[tuple[Partition, KafkaError]] = []
        self._topics: set[str] = set()
        self._made: Consumer | None = None
        self._settings = {
            "group.id": GROUP,
            "queued.max.messages.kbytes": 65_536,
            "fetch.queue.backoff.ms": 5,
            "fetch.error.backoff.ms": 50,
            "max.poll.interval.ms": 86_400_000,
            **settings,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }

    @property
    def _consumer(self) -> Consumer:
        if self._made is None:
            self._made = Consumer(self._settings, logger=log)
        return self._made

    def assign(self, positions: Mapping[Partition, int]) -> None:
        """See `Reader.assign`."""
        self._bounds(positions)  # raises TopicMissing
        self._meet({partition.topic for partition in positions})
        self._positions, self._troubles = dict(positions), []
        self._consumer.assign([TopicPartition(p.topic, p.number, offset) for p, offset in positions.items()])

    def _meet(self, topics: set[str]) -> None:
        """Have librdkafka ask about topics that are new to it.

        By itself it does so while it connects, which is why a consumer is made no earlier than it is assigned
        something, and then once a second only (measured: 0.9 to 1.0 s to the first record, with this 0.005).
        """
        new = topics - self._topics if self._made is not None else set()
        for topic in sorted(new):
            try:
                self._consumer.list_topics(topic, timeout=SLICE_S)
            except KafkaException as error:
                log.debug("topic %s is left to librdkafka to ask about: %s", topic, error)
        self._topics |= topics

    def poll(self, timeout_s: float, limit: int = 500) -> list[Record]:
        """See `Reader.poll`."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._troubles:
                self._raise(*self._troubles[0])
            first = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            messages = [] if first is None else [first, *self._consumer.consume(limit - 1, 0)]
            records = [record for record in map(self._take, messages) if record is not None]
            if records:
                return records  # what went wrong beside them is told by the next call
            if self._errors.fatal is not None:
                raise self._errors.connection_failed("reading")
            if not self._troubles and time.monotonic() > deadline - _LEAST_WAIT_S:
                return []

    def _take(self, message: Message) -> Record | None:
        partition = Partition(message.topic() or "", message.partition() or 0)
        offset = message.offset()
        error = message.error()
        if error is None:
            assert offset is not None
            self._positions[partition] = offset + 1
            epoch = message.leader_epoch()
            timestamp = message.timestamp()[1]
            return Record(partition, offset, message.key(), message.value(), timestamp, -1 if epoch is None else epoch)
        if error.code() == END_OF_PARTITION:
            if offset is not None and partition in self._positions:
                self._positions[partition] = max(self._positions[partition], offset)
        elif error.code() not in OUT_OF_RANGE | MISSING | FOR_GOOD:
            log.debug("passing trouble reading %s: %s", partition, error)
        elif partition in self._positions or error.code() in FOR_GOOD:  # else it was queued under an older assignment
            self._troubles.append((partition, error))
        return None

    def _raise(self, partition: Partition, error: KafkaError) -> NoReturn:
        if error.code() in OUT_OF_RANGE:  # which librdkafka tells once, and reads that partition no more
            bounds, position = self._bounds([partition])[partition], self._positions[partition]
            lost = f", {bounds.low - position} offsets are gone" if position < bounds.low else ""
            raise GapError(
                f"{partition.topic}[{partition.number}]: offset {position} is not in the log, "
                f"which holds {bounds.low}..{bounds.end}{lost}",
                hint="a store is rebuilt by `ekko restore`; nothing resets to earliest or latest by itself",
            )
        self._troubles = self._troubles[1:]
        if error.code() in MISSING:
            raise topic_missing(partition)
        raise self._errors.connection_failed(f"reading {partition.topic}", error)

    def position(self, partition: Partition) -> int:
        """See `Reader.position`."""
        return self._positions[partition]

    def pause(self, partitions: Iterable[Partition]) -> None:
        """See `Reader.pause`."""
        self._consumer.pause([TopicPartition(*partition) for partition in partitions])

    def resume(self, partitions: Iterable[Partition]) -> None:
        """See `Reader.resume`."""
        self._consumer.resume([TopicPartition(*partition) for partition in partitions])

    def close(self) -> None:
        """See `Reader.close`."""
        if self._made is not None:
            self._made.close()
