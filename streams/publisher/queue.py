"""Sending blocks through a bounded queue, each with a fate that is known or said to be unknown."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from ekko.schemas.errors import BadInput, EkkoError, PublishUncertain, Purged, QueueFull
from ekko.streams.log import Cluster, Output
from ekko.streams.publisher.totals import Ledger, SealedBlock

_POLL_S = 0.02


class Sender(Protocol):
    """The two ways in which a publisher sends: through a queue, or in transactions."""

    def send(
        self, blocks: Sequence[SealedBlock], *, complete: bool, deadline_s: float, check: Callable[[], None]
    ) -> None:
        """Take all of `blocks` or, raising, none.

        Args:
            blocks: of one call of publish.
            complete: the trainer's position came with them.
            deadline_s: of the monotonic clock.
            check: called when it is these blocks' turn; raises if they must not go any more.
        """

    def place(self, output: Output, timeout_s: float) -> int:
        """Write one record of no account behind all earlier ones of this trainer; returns its offset."""

    def drop(self) -> None:
        """Forget what is not in the log yet and needs not go there."""

    def flush(self, timeout_s: float) -> None:
        """Return once everything sent is in the log."""

    def close(self, timeout_s: float) -> None:
        """Flush and release the connection, in any case."""


def wait_for(lock: threading.Lock, deadline_s: float) -> None:
    """Acquire `lock`, or raise QueueFull when the time is over."""
    if not lock.acquire(timeout=max(0.0, deadline_s - time.monotonic())):
        raise QueueFull("other threads kept the publisher busy for the whole time-out; nothing was enqueued")


class QueueSender:
    """`Sender` on an idempotent writer. Thread-safe: calls take turns, delivery reports come in any thread.

    Args:
        cluster: where to.
        queue_bytes: bound on what is sent and not acknowledged.
        linger_ms, batch_bytes: see `Cluster.writer`.
        ledger: told what became of each block.
    """

    def __init__(
        self, cluster: Cluster, *, queue_bytes: int, linger_ms: float, batch_bytes: int, ledger: Ledger
    ) -> None:
        self._limit = queue_bytes
        # Our own bound acts first, so that a call goes in whole or not at all.
        self._writer = cluster.writer(linger_ms=linger_ms, queue_bytes=4 * queue_bytes, batch_bytes=batch_bytes)
        self._ledger = ledger
        self._turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._drops = 0
        self._failures: list[tuple[SealedBlock, Exception]] = []

    def send(
        self, blocks: Sequence[SealedBlock], *, complete: bool, deadline_s: float, check: Callable[[], None]
    ) -> None:
        """See `Sender.send`.

        Raises:
            QueueFull: there was no room until the deadline.
            BadInput: the blocks are larger than the whole queue.
            PublishUncertain, TopicMissing, ConnectionFailed, ...: what became of earlier blocks; told once.
        """
        del complete
        size = sum(block.size for block in blocks)
        if size > self._limit:
            raise BadInput(
                f"one call of publish makes {size} bytes of blocks, the queue holds {self._limit}",
                hint="publish smaller batches, or give the publisher a larger queue_bytes",
            )
        wait_for(self._turn, deadline_s)
        try:
            self._await_room(size, deadline_s)
            check()
            for number, block in enumerate(blocks):
                self._send(block, number, len(blocks))
        finally:
            self._turn.release()

    def _await_room(self, size: int, deadline_s: float) -> None:
        self._writer.poll(0.0)
        self._raise_failures()
        while self._waiting_bytes + size > self._limit:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise QueueFull(
                    f"{self._waiting_bytes} bytes wait for their acknowledgement, {size} more do not fit into a queue "
                    f"of {self._limit}; nothing was enqueued",
                    hint="call again later, publish less, or check that the broker keeps up",
                )
            self._writer.poll(min(_POLL_S, left_s))
            self._raise_failures()

    def _send(self, block: SealedBlock, number: int, count: int) -> None:
        self._count(block.size)
        while True:
            try:
                return self._writer.send(block.output, partial(self._delivered, block, self._drops))
            except QueueFull:  # by the number of records: some are acknowledged or given up sooner or later
                self._writer.poll(_POLL_S)
            except EkkoError as error:
                self._count(-block.size)
                if number == 0:
                    raise
                raise PublishUncertain(
                    f"only {number} of {count} blocks of this call were sent: {error.message}", hint=error.hint
                ) from error

    def _delivered(self, block: SealedBlock, drops: int, offset: int | None, error: Exception | None) -> None:
        del offset
        self._count(-block.size)
        if error is None:
            self._ledger.book(block, time.monotonic())
        elif isinstance(error, Purged) and drops < self._drops:
            self._ledger.book_loss(block, "dropped")
        else:
            self._ledger.book_loss(block, "uncertain" if isinstance(error, PublishUncertain) else "refused")
            with self._lock:
                self._failures.append((block, error))

    def _count(self, size: int) -> None:
        with self._lock:
            self._waiting_bytes += size
        self._ledger.book_queue(self._waiting_bytes)

    def _raise_failures(self) -> None:
        with self._lock:
            failures, self._failures = self._failures, []
        if failures:
            raise _failure(failures)

    def place(self, output: Output, timeout_s: float) -> int:
        """See `Sender.place`; raises PublishUncertain when it is not acknowledged in time."""
        placed: list[int | None] = []
        self._writer.send(output, lambda offset, error: placed.append(offset if error is None else None))
        self._writer.flush(timeout_s)
        if not placed or placed[0] is None:
            raise PublishUncertain(
                f"{output.partition.topic} did not acknowledge a record within {timeout_s} s",
                hint="check that the broker answers, and call again",
            )
        return placed[0]

    def drop(self) -> None:
        """See `Sender.drop`: what has left for the broker already is rejected there by its generation."""
        with self._turn:
            self._drops += 1
            self._writer.purge()
            self._writer.poll(0.0)

    def flush(self, timeout_s: float) -> None:
        """See `Sender.flush`.

        Raises:
            PublishUncertain: something has an unknown fate, or is on its way still.
            TopicMissing, ConnectionFailed, ...: something was not delivered.
        """
        left = self._writer.flush(timeout_s)
        self._raise_failures()
        if left:
            raise PublishUncertain(
                f"{left} block(s) are not acknowledged within {timeout_s} s; they are still being sent",
                hint="call flush again, and check that the broker answers",
            )

    def close(self, timeout_s: float) -> None:
        """See `Sender.close`; what is not sent by then is dropped, and told.

        Raises:
            PublishUncertain, TopicMissing, ...: as `flush`.
        """
        left = self._writer.flush(timeout_s)
        self.drop()
        self._writer.close()
        self._raise_failures()
        if left:
            raise PublishUncertain(
                f"{left} block(s) were not acknowledged within {timeout_s} s; the publisher is closed",
                hint="some of them may be in the log: never publish them again",
            )


def _failure(failures: Sequence[tuple[SealedBlock, Exception]]) -> EkkoError:
    """One error for all: of unknown fate if any block is, else of the first one's kind."""
    errors = [_as_ours(error) for _, error in failures]
    first = next((error for error in errors if isinstance(error, PublishUncertain)), errors[0])
    is_uncertain = isinstance(first, PublishUncertain)
    rows = sum(block.rows for block, _ in failures)
    fate = "have an unknown fate" if is_uncertain else "were not delivered"
    return type(first)(
        f"{rows} row(s) in {len(failures)} block(s) of earlier calls {fate}: {first.message}",
        hint="never publish them again: they may be in the log" if is_uncertain else first.hint,
    )


def _as_ours(error: Exception) -> EkkoError:
    return error if isinstance(error, EkkoError) else PublishUncertain(f"{type(error).__name__}: {error}")
