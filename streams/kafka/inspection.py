"""What only an examination of a cluster asks for: brokers as they advertise themselves, settings, rights, groups."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from ekko.schemas.errors import ConfigurationError, ConnectionFailed
from ekko.streams.kafka.said import log
from ekko.streams.kafka.trouble import ClientErrors

if TYPE_CHECKING:
    from concurrent.futures import Future

_PAUSE_S = 0.2
_FIRST_S = 1.0
"""For the first client's answer; each later one is given twice as long as the one before, while there is time."""

_Result = TypeVar("_Result")


class KafkaInspection:
    """Asks one cluster about itself; changes nothing.

    Args:
        bootstrap: host:port, comma-separated.
        settings: librdkafka settings passed through.
        timeout_s: for every request.

    Raises:
        ConfigurationError: a setting that librdkafka does not know.
    """

    def __init__(self, bootstrap: str, settings: Mapping[str, str], *, timeout_s: float = 10.0) -> None:
        self._errors = ClientErrors(bootstrap)
        self._timeout_s = timeout_s
        own = {"bootstrap.servers": bootstrap, "error_cb": self._errors.reports, "allow.auto.create.topics": False}
        self._configuration: dict[str, Any] = {**settings, **own}
        self._admin = self._client()

    def _client(self) -> AdminClient:
        try:
            client = AdminClient(self._configuration, logger=log)
        except KafkaException as error:
            raise ConfigurationError(f"Kafka settings are refused: {error.args[0].str()}") from error
        self._errors.serve = client.poll
        return client

    def brokers(self) -> dict[int, tuple[str, int]]:
        """Host and port that each broker advertises on the listener that the bootstrap address leads to.

        Raises:
            ConnectionFailed: nobody answers at the bootstrap address, or it does not let us in.
        """
        deadline, patience_s = time.monotonic() + self._timeout_s, _FIRST_S
        while True:
            try:
                left_s = max(0.0, deadline - time.monotonic())
                metadata = self._admin.list_topics(timeout=min(patience_s, left_s))
            except KafkaException as error:
                # A client that has just learnt of an advertised address leaves the bootstrap address for it, whether
                # it leads anywhere or not, and what it had asked is lost, at once or silently: a new client asks again.
                if self._errors.no_use_waiting(deadline - _PAUSE_S):
                    raise self._errors.connection_failed("asking for the brokers", error.args[0]) from error
                time.sleep(_PAUSE_S)
                self._admin, patience_s = self._client(), 2 * patience_s
            else:
                return {number: (str(broker.host), broker.port) for number, broker in sorted(metadata.brokers.items())}

    def replicas(self) -> dict[str, tuple[int, int]]:
        """Of each topic the fewest copies of a partition, and the fewest that are in sync; raises as `brokers`."""
        try:
            metadata = self._admin.list_topics(timeout=self._timeout_s)
        except KafkaException as error:
            raise self._errors.connection_failed("asking for the topics", error.args[0]) from error
        return {
            name: (
                min((len(partition.replicas) for partition in topic.partitions.values()), default=0),
                min((len(partition.isrs) for partition in topic.partitions.values()), default=0),
            )
            for name, topic in metadata.topics.items()
        }

    def broker_settings(self, broker: int) -> dict[str, str]:
        """A broker's settings in force; raises ConnectionFailed where it cannot be reached or does not tell."""
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        future = self._admin.describe_configs([resource], request_timeout=self._timeout_s)[resource]
        return {name: entry.value for name, entry in self._result(future, f"settings of broker {broker}").items()}

    def rights(self, topics: Iterable[str]) -> dict[str, frozenset[str]]:
        """Operations ("READ", "WRITE" ...) that we may do on each topic; raises as `broker_settings`."""
        futures = self._admin.describe_topics(
            TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=self._timeout_s
        )
        return {
            name: frozenset(each.name for each in self._result(future, f"rights on {name}").authorized_operations or ())
            for name, future in futures.items()
        }

    def _result(self, future: "Future[_Result]", doing: str) -> _Result:
        try:
            return future.result(self._timeout_s + 1.0)
        except KafkaException as error:
            raise self._errors.connection_failed(doing, error.args[0]) from error
        except TimeoutError as error:
            raise ConnectionFailed(f"{doing}: no answer within {self._timeout_s:g} s") from error
