"""What librdkafka reports when something is wrong, and the error of ours that it means."""

import time
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException

from ekko.schemas.errors import ConnectionFailed, TopicMissing, TransactionAborted
from ekko.streams.log import Output, Partition

if TYPE_CHECKING:
    from collections.abc import Callable

# librdkafka's own codes start with an underscore in Python, though they are public.
FENCED = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})
MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})
OUT_OF_RANGE = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
PURGED = KafkaError._PURGE_QUEUE
NO_LEADER = KafkaError._NOENT
ELECTION = frozenset(
    {NO_LEADER, KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH}
    | {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
)
"""What the old leader, or none, answers: to be asked again with new metadata."""
NO_ANSWER = frozenset(
    {KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError.REQUEST_TIMED_OUT, KafkaError._TRANSPORT}
)
ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN
END_OF_PARTITION = KafkaError._PARTITION_EOF
REFUSED = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_RECORD})
NO_RIGHT = frozenset(
    {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
    | {KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}
)
"""The broker's own answer to a request, which it has not carried out."""
FOR_GOOD = NO_RIGHT | {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED}
"""Failures that waiting does not mend: they are raised, not only logged."""
SLICE_S = 0.25
"""A long wait is cut into these, so that such a failure ends it at once and not at its time-out."""


class Reports:
    """What librdkafka reports on the side, its `error_cb`: the reason behind a bare 'timed out'.

    It knows no client, so a client is freed the moment its owner lets go of it. One that hangs in a cycle is collected
    as garbage whenever and by whatever thread happens to collect: perhaps one of librdkafka's own, in a callback.
    """

    def __init__(self) -> None:
        self.last: KafkaError | None = None
        self.fatal: KafkaError | None = None
        """The last failure of those `FOR_GOOD`, until somebody is told of it. A client connects again all the same, and
        reports anew within about a second (measured) what is still so: a broker may refuse for a while only, as when it
        is back and has not loaded its users yet."""

    def __call__(self, error: KafkaError) -> None:
        """Take one report."""
        if error.code() != ALL_BROKERS_DOWN:  # says no more than the reports before it
            self.last = error
        if error.code() in FOR_GOOD:
            self.fatal = error


class ClientErrors:
    """A client's reports, and the errors of ours that they mean."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.reports = Reports()
        self.serve: Callable[[float], object] = lambda _timeout_s: None
        """The client's own `poll`: reports wait there until somebody serves them, and blocking calls do not."""

    @property
    def fatal(self) -> KafkaError | None:
        """The reported failure that no waiting mends and that nobody was told of, if any."""
        return self.reports.fatal

    def _serve(self) -> None:
        try:
            self.serve(0.0)
        except KafkaException as error:  # a transactional client raises its fatal error in every call from then on
            self.reports(error.args[0])

    def no_use_waiting(self, deadline: float) -> bool:
        """Whether to stop waiting: `deadline` (monotonic seconds) has passed, or it does not mend what is reported."""
        self._serve()
        return self.fatal is not None or time.monotonic() > deadline

    def connection_failed(self, doing: str, error: KafkaError | None = None) -> ConnectionFailed:
        """The error to raise when `doing` did not work; who is told it may ask again."""
        self._serve()
        # A bare 'no answer' says less than what was reported on the side; any other answer is the reason itself.
        bare = error is None or error.code() in NO_ANSWER
        reason = self.fatal or (self.reports.last if bare else None) or error
        self.reports.fatal = None
        detail = reason.str() if reason is not None else "no answer"
        return ConnectionFailed(
            f"{doing} failed at {self._bootstrap}: {detail}",
            hint="check --bootstrap, the broker's advertised.listeners, and the security settings in [kafka]",
        )


def kafka_error(error: BaseException) -> KafkaError:
    """The error in a KafkaException; confluent hides a fatal one, raised during delivery reports, in a SystemError."""
    cause = error if isinstance(error, KafkaException) else error.__cause__
    if not isinstance(cause, KafkaException):
        raise error
    reason: KafkaError = cause.args[0]
    return reason


def topic_missing(partition: Partition) -> TopicMissing:
    """The error for a topic or partition that does not exist."""
    return TopicMissing(
        f"topic {partition.topic} partition {partition.number} does not exist",
        hint="create it with `ekko model apply FILE`; check the spelling of model and region",
    )


def too_large(output: Output, error: KafkaError) -> TransactionAborted:
    """The error for a record that its topic refuses."""
    size = len(output.value or b"")
    return TransactionAborted(
        f"{output.partition.topic}[{output.partition.number}] refuses a record of {size} bytes: {error.str()}",
        hint="raise the topic's max.message.bytes, or let blocks be split smaller",
    )
