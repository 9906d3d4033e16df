"""One Apache Kafka cluster: clients and administration."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._listoffsets import EarliestSpec, LatestSpec, ListOffsetsResultInfo
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from ekko.schemas.errors import ConfigurationError, ConnectionFailed, TopicMissing
from ekko.streams.kafka.group import KafkaGroup
from ekko.streams.kafka.reader import KafkaReader
from ekko.streams.kafka.said import log
from ekko.streams.kafka.transactional_writer import KafkaTransactionalWriter
from ekko.streams.kafka.trouble import ELECTION, MISSING, NO_LEADER, SLICE_S, ClientErrors
from ekko.streams.kafka.writer import KafkaWriter
from ekko.streams.log import Bounds, Partition, TopicSpec

if TYPE_CHECKING:
    from concurrent.futures import Future

_Result = TypeVar("_Result")
_given_up: list[tuple[float, AdminClient]] = []
"""Clients with answers that nobody waits for any more, and when the last of these is due (monotonic seconds). A client
collected as garbage by its own thread, which is where answers arrive, aborts the whole process."""

_RESERVED = frozenset(
    {
        "isolation.level",
        "enable.auto.commit",
        "auto.offset.reset",
        "enable.partition.eof",
        "enable.idempotence",
        "acks",
        "transactional.id",
        "transaction.timeout.ms",
        "allow.auto.create.topics",
    }
)


_CONNECTED_AT_ONCE = {"enable.sparse.connections": False}
"""Connect to every broker as soon as it is known: for the few clients that ask brokers of all kinds. By default a
client that has heard of a broker waits 11 ms before it connects (measured: first answer 13 ms after it is made, with
this 2; transactions opened within 16 to 20 ms, with this 7 to 10)."""


class _LeaderMoved(ConnectionFailed):
    """The partition has no leader yet, or another one, or another leader epoch than the client knows."""


class KafkaCluster:
    """`streams.log.Cluster` on Apache Kafka.

    Args:
        bootstrap: host:port, comma-separated.
        settings: librdkafka settings passed through (security, tuning); what exactness rests on cannot be overridden.
        timeout_s: for every administrative request.

    Raises:
        ConfigurationError: a reserved or unknown setting, or no bootstrap.
    """

    def __init__(self, bootstrap: str, settings: Mapping[str, str] | None = None, *, timeout_s: float = 10.0) -> None:
        reserved = _RESERVED & (settings or {}).keys()
        if reserved:
            raise ConfigurationError(
                f"Kafka setting(s) {', '.join(sorted(reserved))} cannot be changed", hint="exactness rests on them"
            )
        if not bootstrap:
            raise ConfigurationError("no Kafka bootstrap is given", hint="use --bootstrap HOST:PORT or EKKO_BOOTSTRAP")
        self._bootstrap = bootstrap
        self._given = settings
        self._timeout_s = timeout_s
        self._timeouts = {"operation_timeout": timeout_s, "request_timeout": timeout_s}
        self._settings: dict[str, Any] = {
            "socket.connection.setup.timeout.ms": 5_000,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 500,
            "allow.auto.create.topics": False,
            **(settings or {}),
            "bootstrap.servers": bootstrap,
        }
        self._errors = ClientErrors(bootstrap)
        self._knows_leaders = False
        try:
            self._admin = AdminClient(
                _CONNECTED_AT_ONCE | self._settings | {"error_cb": self._errors.reports}, logger=log
            )
            self._errors.serve = self._admin.poll
        except KafkaException as error:
            raise ConfigurationError(f"Kafka settings are refused: {error.args[0].str()}") from error

    def _client(self) -> tuple[dict[str, Any], ClientErrors]:
        errors = ClientErrors(self._bootstrap)
        return {**self._settings, "error_cb": errors.reports}, errors

    def _producer_settings(self, extra: Mapping[str, Any]) -> tuple[dict[str, Any], ClientErrors]:
        settings, errors = self._client()
        defaults = {
            "compression.type": "lz4",
            "message.max.bytes": 100_000_000,
            "queue.buffering.max.messages": 1_000_000,
        }
        return {**defaults, **extra, **settings}, errors

    def reader(self, *, idle_ms: int = 100) -> KafkaReader:
        """See `Cluster.reader`."""
        settings, errors = self._client()
        return KafkaReader({"fetch.wait.max.ms": idle_ms, **settings}, errors, self.bounds)

    def writer(
        self, *, linger_ms: float = 0.0, queue_bytes: int = 64 * 1024 * 1024, batch_bytes: int = 1_000_000
    ) -> KafkaWriter:
        """See `Cluster.writer`."""
        extra = {
            "linger.ms": linger_ms,
            "queue.buffering.max.kbytes": max(1, queue_bytes // 1024),
            "batch.size": min(batch_bytes, 1_000_000),
            "delivery.timeout.ms": 60_000,
        }
        return KafkaWriter(*self._producer_settings(extra))

    def transactional_writer(self, transactional_id: str, *, thin_link: bool = False) -> KafkaTransactionalWriter:
        """See `Cluster.transactional_writer`."""
        extra = _CONNECTED_AT_ONCE | ({"compression.type": "zstd"} if thin_link else {})
        settings, errors = self._producer_settings(extra)
        return KafkaTransactionalWriter(settings, errors, transactional_id, self._timeout_s, counts=thin_link)

    def group(self, name: str) -> KafkaGroup:
        """See `Cluster.group`."""
        settings, errors = self._client()
        return KafkaGroup(settings, errors, name)

    def bounds(self, partitions: Iterable[Partition]) -> dict[Partition, Bounds]:
        """See `Cluster.bounds`."""
        asked = {partition: TopicPartition(*partition) for partition in partitions}
        deadline = time.monotonic() + self._timeout_s
        if not self._knows_leaders:
            # Asked for offsets first of all, a client that has just connected may sit out 1 to 3 s (measured).
            self.topics()
        while asked:
            try:
                return self._list_offsets(asked)
            except _LeaderMoved:
                # The client asks the leader it knows until its metadata is read anew, which by itself takes minutes.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
                self.topics()
        return {}

    def _list_offsets(self, asked: Mapping[Partition, TopicPartition]) -> dict[Partition, Bounds]:
        answers = [
            self._admin.list_offsets(
                dict.fromkeys(asked.values(), spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=self._timeout_s,
            )
            for spec in (EarliestSpec(), LatestSpec())
        ]
        low, end = (
            {
                Partition(tp.topic, tp.partition): self._offset(Partition(tp.topic, tp.partition), future)
                for tp, future in answer.items()
            }
            for answer in answers
        )
        return {partition: Bounds(low[partition], end[partition]) for partition in asked}

    def _offset(self, partition: Partition, future: "Future[ListOffsetsResultInfo]") -> int:
        doing = f"offsets of {partition.topic}"
        offset = int(self._result(future, doing, partition).offset)
        if offset < 0:  # a leader that can't be reached comes as an invalid offset and not as an error (measured)
            raise self._errors.connection_failed(doing)
        return offset

    def _result(self, future: "Future[_Result]", doing: str, partition: Partition | None = None) -> _Result:
        try:
            return self._await(future, doing)
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in MISSING or self._is_unknown(reason, partition):
                raise TopicMissing(
                    f"{doing}: no such topic or partition", hint="create it with `ekko model apply FILE`"
                ) from error
            failure = self._errors.connection_failed(doing, reason)
            if reason.code() in ELECTION:
                raise _LeaderMoved(failure.message, hint=failure.hint) from error
            raise failure from error

    def _await(self, future: "Future[_Result]", doing: str) -> _Result:
        deadline = time.monotonic() + self._timeout_s + 1.0
        while True:
            try:
                return future.result(SLICE_S)
            except TimeoutError as error:
                if self._errors.no_use_waiting(deadline):
                    self._keep_until_answered()
                    raise self._errors.connection_failed(doing) from error

    def _keep_until_answered(self) -> None:
        now = time.monotonic()
        _given_up[:] = [(due, admin) for due, admin in _given_up if due > now]
        _given_up.append((now + 2.0 * self._timeout_s + 5.0, self._admin))

    def _is_unknown(self, reason: KafkaError, partition: Partition | None) -> bool:
        """Whether 'no leaders found' means that there is no such partition, rather than an election."""
        if reason.code() != NO_LEADER or partition is None:
            return False
        return partition.number >= self.topics().get(partition.topic, 0)

    def topics(self) -> dict[str, int]:
        """See `Cluster.topics`."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                metadata = self._admin.list_topics(timeout=SLICE_S)
                break
            except KafkaException as error:
                if self._errors.no_use_waiting(deadline):
                    raise self._errors.connection_failed("listing topics", error.args[0]) from error
        self._knows_leaders = True
        return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}

    def topic_settings(self, topic: str) -> dict[str, str]:
        """See `Cluster.topic_settings`."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        future = self._admin.describe_configs([resource], request_timeout=self._timeout_s)[resource]
        return {name: entry.value for name, entry in self._result(future, f"settings of {topic}").items()}

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        """See `Cluster.create_topics`."""
        existing = self.topics()
        missing = {spec.name: spec for spec in specs if spec.name not in existing}
        if not missing:
            return
        new = [NewTopic(spec.name, spec.partitions, config=dict(spec.settings)) for spec in missing.values()]
        for name, future in self._admin.create_topics(new, **self._timeouts).items():
            try:
                self._await(future, f"creating topic {name}")
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._errors.connection_failed(f"creating topic {name}", error.args[0]) from error
        self._wait(lambda: self._usable(missing.values()), f"creating {', '.join(missing)}")

    def _usable(self, specs: Iterable[TopicSpec]) -> bool:
        # A client of its own: this one may still know a deleted topic of the same name, and ask its leader in vain.
        fresh = KafkaCluster(self._bootstrap, self._given, timeout_s=min(2.0, self._timeout_s))
        try:
            fresh.bounds(Partition(spec.name, number) for spec in specs for number in range(spec.partitions))
        except (TopicMissing, ConnectionFailed):  # a leader is elected within about 100 ms of the creation
            return False
        return True

    def _wait(self, done: Callable[[], bool], doing: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise self._errors.connection_failed(doing)
            time.sleep(0.02)

    def delete_topics(self, names: Iterable[str]) -> None:
        """See `Cluster.delete_topics`."""
        existing = sorted(set(names) & self.topics().keys())
        if not existing:
            return
        for name, future in self._admin.delete_topics(existing, **self._timeouts).items():
            self._result(future, f"deleting topic {name}")
        self._wait(lambda: not self.topics().keys() & set(existing), f"deleting {', '.join(existing)}")

    def close(self) -> None:
        """See `Cluster.close`."""
