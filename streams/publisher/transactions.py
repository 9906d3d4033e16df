"""Sending blocks in transactions: a trainer's deltas and its input position are in the log together or not at all."""

import threading
import time
from collections.abc import Callable, Sequence

from ekko.schemas.errors import BadInput, CommitUncertain, Fenced, PublishUncertain, QueueFull, TransactionAborted
from ekko.streams.log import Cluster, Output
from ekko.streams.publisher.queue import wait_for
from ekko.streams.publisher.totals import Ledger, SealedBlock

MAX_TRANSACTION_BYTES = 16 * 1024 * 1024
"""Readers of the partitions touched wait for a transaction, so it must be short."""


class TransactionSender:
    """`publisher_queue.Sender` on a transactional writer: blocks gather until the trainer's position comes with some.

    Making one fences every earlier trainer of the same identity.
    """

    def __init__(self, cluster: Cluster, identity: str, *, queue_bytes: int, ledger: Ledger) -> None:
        self._writer = cluster.transactional_writer(identity)
        self._limit = min(queue_bytes, MAX_TRANSACTION_BYTES)
        self._ledger = ledger
        self._turn = threading.Lock()
        self._gathered: list[SealedBlock] = []
        self._dead: Exception | None = None

    def send(
        self, blocks: Sequence[SealedBlock], *, complete: bool, deadline_s: float, check: Callable[[], None]
    ) -> None:
        """See `publisher_queue.Sender.send`; returns after the commit when `complete`.

        Raises:
            QueueFull: more gathers than a transaction may hold.
            Fenced: another trainer has this identity; its `last_position` tells what of this one is in the log.
            PublishUncertain: the commit has an unknown fate. A new publisher's `last_position` tells it.
            TransactionAborted: nothing was written until the deadline; `blocks` are forgotten, earlier ones kept.
        """
        wait_for(self._turn, deadline_s)
        try:
            check()
            if self._dead is not None:
                raise self._dead
            size = sum(block.size for block in self._gathered) + sum(block.size for block in blocks)
            if size > self._limit:
                raise QueueFull(
                    f"{size} bytes of blocks would wait for a position, a transaction holds {self._limit}; "
                    "nothing was enqueued",
                    hint="give publish a position= more often",
                )
            if complete:
                self._commit([*self._gathered, *blocks], deadline_s)
                self._gathered = []
            else:
                self._gathered += blocks
            self._ledger.book_queue(sum(block.size for block in self._gathered))
        finally:
            self._turn.release()

    def _commit(self, blocks: Sequence[SealedBlock], deadline_s: float) -> None:
        outputs = [block.output for block in blocks]
        while True:
            try:
                self._writer.transact(outputs, max(0.1, deadline_s - time.monotonic()))
                break
            except TransactionAborted:  # nothing is in the log, so the same again is right
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.01)
            except Fenced as error:
                self._dead = error
                raise
            except CommitUncertain as error:
                for block in blocks:
                    self._ledger.book_loss(block, "uncertain")
                rows = sum(block.rows for block in blocks)
                self._dead = PublishUncertain(
                    f"{rows} row(s) and their position have an unknown fate: {error.message}",
                    hint="make a new Publisher with the same transactional_id and go on after its last_position()",
                )
                raise self._dead from error
        now_s = time.monotonic()
        for block in blocks:
            self._ledger.book(block, now_s)

    def place(self, output: Output, timeout_s: float) -> int:
        """See `publisher_queue.Sender.place`."""
        return self._writer.transact([output], timeout_s)[0]

    def drop(self) -> None:
        """See `publisher_queue.Sender.drop`."""
        with self._turn:
            for block in self._gathered:
                self._ledger.book_loss(block, "dropped")
            self._gathered = []
        self._ledger.book_queue(0)

    def flush(self, timeout_s: float) -> None:
        """See `publisher_queue.Sender.flush`.

        Raises:
            BadInput: blocks wait for a position, and without one a restarted trainer would learn the same again.
        """
        del timeout_s
        if self._dead is not None:
            raise self._dead
        if self._gathered:
            rows = sum(block.rows for block in self._gathered)
            raise BadInput(
                f"{rows} row(s) in {len(self._gathered)} block(s) wait for a position and are not in the log",
                hint="pass position= with the last publish of a step",
            )

    def close(self, timeout_s: float) -> None:
        """See `publisher_queue.Sender.close`; raises as `flush`, but not what `send` has told already."""
        try:
            if self._dead is None:
                self.flush(timeout_s)
        finally:
            self._writer.close()
