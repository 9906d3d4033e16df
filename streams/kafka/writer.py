"""Idempotent writer with delivery reports on a confluent producer."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ekko.schemas.errors import ConnectionFailed, EkkoError, PublishUncertain, Purged, QueueFull
from ekko.streams.kafka.said import log
from ekko.streams.kafka.trouble import (
    MISSING,
    NO_RIGHT,
    PURGED,
    REFUSED,
    ClientErrors,
    kafka_error,
    too_large,
    topic_missing,
)
from ekko.streams.log import Delivered, Output


class KafkaWriter:
    """`streams.log.Writer` on an idempotent confluent producer."""

    def __init__(self, settings: dict[str, Any], errors: ClientErrors) -> None:
        self._errors = errors
        self._producer = Producer({**settings, "enable.idempotence": True, "acks": "all"}, logger=log)

    def send(self, output: Output, delivered: Delivered | None = None) -> None:
        """See `Writer.send`; an authentication failure is raised here, not only logged."""
        if self._errors.fatal is not None:
            raise self._errors.connection_failed("writing")

        def report(error: KafkaError | None, message: Message) -> None:
            if delivered is not None:
                delivered(
                    message.offset() if error is None else None, None if error is None else self._fate(error, output)
                )

        try:
            self._producer.produce(
                output.partition.topic,
                value=output.value,
                key=output.key,
                partition=output.partition.number,
                on_delivery=report,
            )
        except BufferError as error:
            raise QueueFull("the publish queue is full", hint="publish less, or wait and call again") from error
        except KafkaException as error:
            raise self._fate(error.args[0], output) from error

    def _fate(self, error: KafkaError, output: Output) -> EkkoError:
        if error.code() == PURGED:
            return Purged(
                f"a record for {output.partition.topic}[{output.partition.number}] was dropped before it was sent"
            )
        if error.code() in REFUSED:
            return too_large(output, error)
        if error.code() in MISSING:
            return topic_missing(output.partition)
        if error.code() in NO_RIGHT:
            return self._errors.connection_failed(f"writing to {output.partition.topic}", error)
        # Also if we are not let in any more: the block may have been sent, and its answer lost, when we still were.
        refused = "" if self._errors.fatal is None else f" ({self._errors.fatal.str()})"
        return PublishUncertain(
            f"delivery to {output.partition.topic}[{output.partition.number}] has an unknown fate: "
            f"{error.str()}{refused}",
            hint="read the log back before publishing these deltas again",
        )

    def poll(self, timeout_s: float = 0.0) -> None:
        """See `Writer.poll`."""
        self._serve(lambda: self._producer.poll(timeout_s))

    def flush(self, timeout_s: float) -> int:
        """See `Writer.flush`."""
        return self._serve(lambda: self._producer.flush(timeout_s))

    def _serve(self, call: Callable[[], int]) -> int:
        """Make a call that serves delivery reports; once the client has failed for good, confluent raises in it."""
        try:
            return call()
        except (KafkaException, SystemError) as error:
            reason = kafka_error(error)
            self._errors.reports(reason)
            raise self._errors.connection_failed("writing", reason) from error

    def purge(self) -> None:
        """See `Writer.purge`."""
        # confluent-kafka 2.16 reads `blocking` the wrong way round (measured): False is what waits for the purge to be
        # done, and without waiting it also takes records that are sent after it.
        self._producer.purge(in_queue=True, in_flight=False, blocking=False)

    def close(self) -> None:
        """See `Writer.close`."""
        with suppress(ConnectionFailed):
            self.flush(1.0)
