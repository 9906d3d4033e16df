"""A consumer group on a confluent consumer that is seen in it and reads nothing."""

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ekko.schemas.errors import ConfigurationError, ConnectionFailed
from ekko.streams.groups import GroupPlace, metadata_of
from ekko.streams.kafka.said import log
from ekko.streams.kafka.trouble import ClientErrors
from ekko.streams.log import Partition

_log = logging.getLogger("ekko.kafka")

_SESSION_MS = 6_000
"""A process that was killed is a member for so long; brokers allow no less by default."""

_LEAVE_S = 5.0

_ACTIVE = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})


class KafkaGroup:
    """Implements `streams.groups.Group`."""

    def __init__(self, settings: dict[str, Any], errors: ClientErrors, name: str) -> None:
        self._name, self._errors = name, errors
        self._failure = ""
        self._consumer = Consumer(
            {
                "session.timeout.ms": _SESSION_MS,
                "heartbeat.interval.ms": _SESSION_MS // 3,
                "max.poll.interval.ms": 86_400_000,
                "client.id": name,
                **settings,
                "group.id": name,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "on_commit": self._told,
            },
            logger=log,
        )

    def committed(self, partitions: Iterable[Partition], timeout_s: float = 10.0) -> dict[Partition, GroupPlace]:
        """See `Group.committed`."""
        asked = [TopicPartition(*partition) for partition in partitions]
        try:
            answers = self._consumer.committed(asked, timeout=timeout_s)
        except KafkaException as error:
            raise self._errors.connection_failed(f"places of group {self._name}", error.args[0]) from error
        places = {}
        for answer in answers:
            if answer.error is not None:  # the reply as a whole may succeed all the same
                raise self._errors.connection_failed(f"places of group {self._name}", answer.error)
            if answer.offset >= 0:
                places[Partition(answer.topic, answer.partition)] = GroupPlace(answer.offset, answer.metadata or "")
        return places

    def join(self, topics: Iterable[str]) -> None:
        """See `Group.join`."""
        # Assigned nothing, it fetches nothing: the group's own assignment is only what the tools show.
        self._consumer.subscribe(list(topics), on_assign=lambda consumer, _: consumer.assign([]))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """See `Group.commit`."""
        self._consumer.poll(0.0)  # serves rebalances, and the fate of earlier commits
        if positions:
            try:
                self._consumer.commit(offsets=_offsets(positions), asynchronous=True)
            except KafkaException as error:
                self._told(error.args[0], [])

    def write(self, positions: Mapping[Partition, int], timeout_s: float = 10.0) -> None:
        """See `Group.write`."""
        try:
            answers = self._consumer.commit(offsets=_offsets(positions), asynchronous=False) or []
        except KafkaException as error:
            if error.args[0].code() in _ACTIVE:
                raise ConfigurationError(
                    f"group {self._name} has members: its process runs, or was killed less than "
                    f"{_SESSION_MS // 1_000} s ago; nothing was changed",
                    hint="stop it, and try again",
                ) from error
            raise self._errors.connection_failed(f"committing to group {self._name}", error.args[0]) from error
        refused = {f"{at.topic}[{at.partition}]": at.error.str() for at in answers if at.error is not None}
        found = self.committed(positions, timeout_s)
        wanted = {at: GroupPlace(offset, metadata_of(offset)) for at, offset in positions.items()}
        if refused or found != wanted:
            raise ConnectionFailed(
                f"group {self._name} did not take everything: {refused or 'what was read back differs'}",
                hint="run it again: the store's own positions count, not these",
            )

    def close(self) -> None:
        """See `Group.close`.

        Where the group is being joined at that moment, say since its broker has just come back, librdkafka may wait for
        ever for an answer that it has thrown away itself (confluentinc/librdkafka#4884), so nobody waits for it long.
        """
        leaving = threading.Thread(target=self._consumer.close, name=f"leaving {self._name}", daemon=True)
        leaving.start()
        leaving.join(_LEAVE_S)
        if leaving.is_alive():
            _log.warning("group %s does not let go; it forgets this member in %d s", self._name, _SESSION_MS // 1_000)

    def _told(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        """A commit that fails is harmless; one that fails again and again should be seen in the log once."""
        failure = "" if error is None or error.code() in _ACTIVE else error.str()
        if failure and failure != self._failure:
            _log.warning("group %s, for lag tools only: a commit failed: %s", self._name, failure)
        self._failure = failure


def _offsets(positions: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(*at, offset, metadata_of(offset)) for at, offset in positions.items()]
