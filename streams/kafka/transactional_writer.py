"""Transactional writer on a confluent producer: every call ends in a known fate or says that it is unknown."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ekko.schemas.errors import CommitUncertain, EkkoError, Fenced, TransactionAborted
from ekko.streams.kafka.said import log
from ekko.streams.kafka.trouble import FENCED, FOR_GOOD, REFUSED, ClientErrors, kafka_error, too_large
from ekko.streams.log import Output

TRANSACTION_TIMEOUT_MS = 2_000
"""How long a writer killed in mid-transaction holds its partitions."""

_OPEN_SLICE_S = 0.02
"""While an older writer's transaction is being ended, nobody may open one. librdkafka asks again after 500 ms, which
cannot be set, but at once when it is called again (measured: 0.045 s to fence a writer in mid-transaction; 0.26 to 0.51
when it was called again every 250 ms)."""

_COUNT_MS = 100
"""How often librdkafka tells what it has sent; making that text takes it some tenths of a millisecond."""


class _Wire:
    """What is on the network by librdkafka's statistics, its `stats_cb`; it knows no client (see `Reports`)."""

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, statistics: str) -> None:
        self.sent = sum(broker["txbytes"] for broker in json.loads(statistics)["brokers"].values())


class KafkaTransactionalWriter:
    """`streams.log.TransactionalWriter` on a confluent transactional producer."""

    def __init__(
        self,
        settings: dict[str, Any],
        errors: ClientErrors,
        transactional_id: str,
        timeout_s: float,
        *,
        counts: bool = False,
    ) -> None:
        self._identity = transactional_id
        self._wire = _Wire()
        counting = {"statistics.interval.ms": _COUNT_MS, "stats_cb": self._wire} if counts else {}
        self._sequence_broken = False
        self._errors = errors
        self._producer = Producer(
            {
                "linger.ms": 0,
                # A transaction that begins while the markers of the one before are being written is told to try again:
                # with the default of 100 ms each takes 107 ms, with these 4, and 11 instead of 26 at p99 (measured).
                "retry.backoff.ms": 1,
                "retry.backoff.max.ms": 5,
                **counting,
                **settings,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            },
            logger=log,
        )
        errors.serve = self._producer.poll
        self._open(time.monotonic() + timeout_s)

    @property
    def wire_bytes(self) -> int:
        """See `TransactionalWriter.wire_bytes`."""
        return self._wire.sent

    def _open(self, deadline: float) -> None:
        """Fence older writers of this identity and wait until their transactions have ended."""
        while True:
            try:
                return self._producer.init_transactions(_OPEN_SLICE_S)
            except KafkaException as error:
                reason = error.args[0]
                if not reason.retriable() or self._errors.no_use_waiting(deadline):
                    raise self._errors.connection_failed(f"opening transactions as {self._identity}", reason) from error

    @staticmethod
    def _retry(call: Callable[[float], None], deadline: float) -> None:
        """Repeat a transactional call while its error says that this is right."""
        while True:
            try:
                return call(max(0.1, deadline - time.monotonic()))
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise

    def transact(self, outputs: Sequence[Output], timeout_s: float = 10.0) -> list[int]:
        """See `TransactionalWriter.transact`."""
        deadline = time.monotonic() + timeout_s
        try:
            return self._transact(outputs, deadline)
        except TransactionAborted:
            if not self._sequence_broken:
                raise
            # After a refused record librdkafka notices its broken sequence one transaction late, and mends it then.
            self._sequence_broken = False
            return self._transact(outputs, deadline)

    def _transact(self, outputs: Sequence[Output], deadline: float) -> list[int]:
        offsets = [-1] * len(outputs)
        refusals: list[KafkaError] = []
        try:
            self._producer.begin_transaction()
            for number, output in enumerate(outputs):
                self._produce(number, output, offsets, refusals)
            self._producer.flush(max(0.0, deadline - time.monotonic()))
            self._retry(self._producer.commit_transaction, deadline)
        except (KafkaException, SystemError) as error:
            asked = -1 not in offsets  # librdkafka asks for the commit once everything is delivered, and never before
            raise self._given_up(kafka_error(error), outputs, refusals, deadline, asked=asked) from error
        return offsets

    def _produce(self, number: int, output: Output, offsets: list[int], refusals: list[KafkaError]) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                offsets[number] = message.offset() or 0
            elif error.code() in REFUSED:
                refusals.append(error)

        while True:
            try:
                return self._producer.produce(
                    output.partition.topic,
                    value=output.value,
                    key=output.key,
                    partition=output.partition.number,
                    on_delivery=report,
                )
            except BufferError:
                self._producer.poll(0.01)

    def _given_up(
        self,
        error: KafkaError,
        outputs: Sequence[Output],
        refusals: list[KafkaError],
        deadline: float,
        *,
        asked: bool,
    ) -> EkkoError:
        """The error that tells the fate of a transaction in which a step failed, if `asked` perhaps its commit."""
        if error.code() in REFUSED:
            refusals.append(error)
        if refusals or error.txn_requires_abort():
            cannot_abort = self._abort(max(deadline, time.monotonic() + 1.0))
            if cannot_abort is not None:
                error = cannot_abort
            elif refusals:
                self._sequence_broken = True
                # A whole batch is refused for its largest record.
                return too_large(max(outputs, key=lambda output: len(output.value or b"")), refusals[0])
            elif error.code() not in FENCED | FOR_GOOD:
                return TransactionAborted(f"transaction of {self._identity} was aborted: {error.str()}")
            else:
                asked = False  # and nothing is there
        if error.code() in FENCED:
            return Fenced(f"{self._identity} was taken over by another process: {error.str()}")
        # Who is not let in any more may have been when it asked for the commit, and the answer was lost.
        if error.code() in FOR_GOOD and not asked:
            return self._errors.connection_failed(f"writing as {self._identity}", error)
        return CommitUncertain(
            f"transaction of {self._identity} has an unknown fate: {error.str()}",
            hint="a new writer fences this one; read back what was committed",
        )

    def _abort(self, deadline: float) -> KafkaError | None:
        """Abort; returns what kept it from being aborted, if anything."""
        try:
            self._retry(self._producer.abort_transaction, deadline)
        except (KafkaException, SystemError) as error:
            return kafka_error(error)
        return None

    def close(self) -> None:
        """See `TransactionalWriter.close`."""
        self._producer.purge()
