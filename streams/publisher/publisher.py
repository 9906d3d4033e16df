"""The trainer's side: numpy deltas in, acknowledged delta blocks in the source log out (DESIGN section 5)."""

import itertools
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration, check_trainer
from ekko.schemas.errors import ConfigurationError, EkkoError, OutOfRange
from ekko.schemas.hashing import table_seed
from ekko.schemas.signals import TRAINER
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster
from ekko.streams.publisher import batches
from ekko.streams.publisher.admission import Admission
from ekko.streams.publisher.control import ControlFollower, RollbackGate
from ekko.streams.publisher.farewell import say_farewell
from ekko.streams.publisher.model import PublishedModel
from ekko.streams.publisher.position import PositionSearch, position_shard, with_position
from ekko.streams.publisher.queue import QueueSender, Sender
from ekko.streams.publisher.refusals import Refusals
from ekko.streams.publisher.totals import REFUSED, Acknowledged, Ledger, PublishReceipt, seal
from ekko.streams.publisher.transactions import TransactionSender

DEFAULT_QUEUE_BYTES = 64 * 1024 * 1024
_FORGOTTEN_TIMEOUT_S = 10.0

_log = logging.getLogger("ekko.publisher")


def _flush_forgotten(model: str, sender: Sender) -> None:
    """At the end of a script that never closed its publisher, send what is queued instead of losing it silently."""
    _log.warning("a publisher of model %s was not closed: flushing what it holds; use `with Publisher(...)`", model)
    try:
        sender.close(_FORGOTTEN_TIMEOUT_S)
    except EkkoError as error:
        _log.error("model %s: %s", model, error)


class Publisher:
    """Publishes the deltas of one model.

    Threads may share one: `publish` computes in parallel and enqueues call by call. With `transactional_id` one thread
    should publish, for the position completes whatever came before it.

    After a rollback, `publish` drops the queue, calls `on_rollback(generation)` in the caller's thread and raises
    RolledBack, for the batch in hand was computed from what is gone; the next call is welcome. Other threads get
    RolledBack while the callback runs, and once more after it. Without a callback every further call raises.

    Args:
        model: its name in the catalogue.
        cluster: the central cluster; None connects to `bootstrap`.
        bootstrap: host:port, comma-separated; None takes EKKO_BOOTSTRAP.
        trainer: who learnt the deltas: named in every block, so that they can be retracted or denied; 1 to 200
            printable characters. Default: the transactional_id, else host name and process id.
        generation: the rollback count that was in force when the trainer's parameters were read, if they were saved;
            None: the one in force now.
        seed: of the stochastic rounding; mixed with the trainer's name.
        queue_bytes: bound on bytes that wait for an acknowledgement.
        linger_ms: how long a block may wait for others to travel with.
        on_rollback: pulls fresh parameters; see above.
        transactional_id: makes deltas and input position one: blocks gather until a publish has `position=`, which
            commits them all and returns then. A new publisher of the same identity fences the old one.
        admission: counts touches of keys, for tables that declare `admission`; None: from nothing on.
        timeout_s: for connecting and reading catalogue and control topic.

    Raises:
        ConfigurationError: no such model, no bootstrap, no such trainer's name, a generation that never was.
        ConnectionFailed: no broker, a name that does not resolve, a wrong password or certificate.
        TopicMissing, CatalogueConflict: the model's topic is not there or not as declared.
    """

    def __init__(
        self,
        model: str,
        *,
        cluster: Cluster | None = None,
        bootstrap: str | None = None,
        trainer: str | None = None,
        generation: int | None = None,
        seed: int = 0,
        queue_bytes: int = DEFAULT_QUEUE_BYTES,
        linger_ms: float = 1.0,
        on_rollback: Callable[[int], None] | None = None,
        transactional_id: str | None = None,
        admission: Admission | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        name = transactional_id if trainer is None else trainer
        self.trainer = f"{socket.gethostname()}-{os.getpid()}" if name is None else name
        check_trainer(self.trainer)
        self._seed = seed ^ table_seed(self.trainer)
        self._sequence = itertools.count()
        self._admission = Admission() if admission is None else admission
        self._closed = False
        with ExitStack() as opened:
            if cluster is None:
                cluster = KafkaCluster(bootstrap or os.environ.get("EKKO_BOOTSTRAP", ""), timeout_s=timeout_s)
                opened.callback(cluster.close)
            self._cluster = cluster
            self._model = PublishedModel(cluster, model, timeout_s)
            opened.callback(self._model.close)
            follower = ControlFollower(cluster, self._model.declaration, self._model.catalogue.codec, timeout_s)
            opened.callback(follower.close)
            self._gate = RollbackGate(model, follower, generation, on_rollback)
            self._ledger = Ledger(model)
            self._refusals = Refusals(cluster, model, TRAINER + self.trainer)
            opened.callback(self._refusals.close)
            self._sender = self._make_sender(transactional_id, queue_bytes, linger_ms)
            self._forgotten = weakref.finalize(self, _flush_forgotten, model, self._sender)
            self._opened = opened.pop_all()

    def _make_sender(self, transactional_id: str | None, queue_bytes: int, linger_ms: float) -> Sender:
        if transactional_id is None:
            return QueueSender(
                self._cluster,
                queue_bytes=queue_bytes,
                linger_ms=linger_ms,
                batch_bytes=self._model.block_bytes,
                ledger=self._ledger,
            )
        name, incarnation = self._model.declaration.name, self._model.incarnation
        identity = topics.trainer_transactional_id(name, incarnation, transactional_id)
        return TransactionSender(self._cluster, identity, queue_bytes=queue_bytes, ledger=self._ledger)

    @property
    def model(self) -> ModelDeclaration:
        """The model as the publisher knows it."""
        return self._model.declaration

    @property
    def generation(self) -> int:
        """The rollback count that is stamped on blocks: to be saved with the trainer's parameters."""
        return self._gate.generation

    @property
    def acknowledged(self) -> Acknowledged:
        """Totals of what is in the log for certain."""
        return self._ledger.acknowledged

    def publish(
        self,
        table: str,
        keys: npt.ArrayLike,
        deltas: npt.ArrayLike,
        *,
        created: npt.ArrayLike | None = None,
        position: bytes | None = None,
        timeout_s: float = 10.0,
    ) -> PublishReceipt:
        """Send additive changes of rows: all of them or, when this raises, none.

        Deltas of equal keys are summed, all are rounded to steps of the table, rows without any change are left out.

        Args:
            keys: integers [N], not negative; may repeat.
            deltas: floating point [N, dim].
            created: bool [N], rows that the trainer has just created; they are urgent. None for none.
            position: the trainer's own input position after this batch, opaque.
            timeout_s: how long to wait for room in the queue, or for the commit.

        Raises:
            BadInput: NaN, infinity, out of range, wrong shape or dtype; row and key are named.
            ConfigurationError: no such table, or the model is gone.
            QueueFull: the queue stayed full; nothing was enqueued.
            RolledBack: the model was rolled back, see above.
            PublishUncertain: earlier blocks have an unknown fate; nothing of this call was enqueued. Told once. In a
                transaction this call's fate is unknown, too, and the publisher of no more use.
            Fenced: another trainer has taken over this transactional_id.
        """
        entered_s, entered_us = time.monotonic(), time.time_ns() // 1_000
        try:
            self._check_open()
            declaration, catalogue_end = self._model.table(table)
            generation = self._gate.enter(self._sender.drop)
            batches.check_position(position)
            rows = self._quantised(batches.check_batch(declaration, keys, deltas, created))
            touches = self._admission.look(rows)
            template = self._template(declaration, generation, catalogue_end)
            blocks = self._blocks(touches.let_in, replace(template, trainer_position=position, published_us=entered_us))
            self._send(blocks, generation, entered_s, timeout_s)
            self._admission.count(touches)
        except EkkoError as error:
            REFUSED.labels(self._model.declaration.name, type(error).__name__).inc()
            if isinstance(error, OutOfRange):
                self._refusals.add(len(np.asarray(keys)))
            raise
        let_in = len(touches.let_in.keys)
        self._ledger.book_not_admitted(table, len(rows.keys) - let_in)
        return PublishReceipt(let_in, len(blocks), len(rows.keys) - let_in)

    def _send(self, blocks: list[DeltaBlock], generation: int, entered_s: float, timeout_s: float) -> None:
        self._sender.send(
            [seal(block, self._model.topic, entered_s) for block in blocks],
            complete=any(block.trainer_position is not None for block in blocks),
            deadline_s=entered_s + timeout_s,
            check=lambda: self._gate.check(generation),
        )

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigurationError("the publisher is closed", hint="make a new one")

    def _quantised(self, batch: batches.Batch) -> batches.ShardedRows:
        shards, sequence = self._model.declaration.shards, next(self._sequence)
        return batches.quantise(batch, shards, seed=self._seed, sequence=sequence)

    def _blocks(self, rows: batches.ShardedRows, template: DeltaBlock) -> list[DeltaBlock]:
        blocks = list(batches.cut(rows, template, self._model.limits()))
        if template.trainer_position is None:
            return blocks
        return with_position(blocks, template, self._model.declaration.shards)

    def _template(self, table: TableDeclaration, generation: int, catalogue_end: int) -> DeltaBlock:
        """A block without rows."""
        return DeltaBlock(
            incarnation=self._model.incarnation,
            table=table.name,
            shard=0,
            keys=np.empty(0, np.uint64),
            deltas=np.empty((0, table.dim), np.int32),
            trainer=self.trainer,
            generation=generation,
            catalogue=catalogue_end,
        )

    def last_position(self, timeout_s: float = 60.0) -> bytes | None:
        """The position that came with this trainer's last batch in the log; None: it never published one.

        To be asked before the first publish. With a transactional_id it is exact: all deltas up to it are in the log,
        and none after it. Without, deltas that were still queued when the trainer died may be missing.

        Raises:
            GapError: nothing was found, but the beginning of the log is gone.
            ConnectionFailed: the search was not done within `timeout_s`.
        """
        model = self._model.declaration
        if not model.tables:
            return None  # and so nobody can have published
        mark = self._template(model.tables[0], self._gate.in_force, self._model.catalogue.end)
        mark = replace(mark, shard=position_shard(self.trainer, model.shards))
        # All that an earlier process of this trainer wrote stands before a record of ours, and is decided once that can
        # be read.
        record = seal(mark, self._model.topic, time.monotonic()).output
        end = self._sender.place(record, timeout_s)
        codec, incarnation = self._model.catalogue.codec, self._model.incarnation
        return PositionSearch(self._cluster, record.partition, codec, self.trainer, incarnation, timeout_s).before(end)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Return once everything published is acknowledged.

        Raises:
            PublishUncertain: a delivery has an unknown fate, or is not acknowledged within `timeout_s`.
            TopicMissing, ConnectionFailed, ...: something was not delivered; how much is told.
            BadInput: with a transactional_id, blocks wait for a position.
        """
        self._sender.flush(timeout_s)

    def close(self, timeout_s: float = 30.0) -> None:
        """Flush, tell the monitor that this trainer has ended, and release the connections, in any case.

        Raises as `flush`; the trainer then counts as one that has vanished. A second call does nothing.
        """
        self._close(timeout_s, farewell=True)

    def _close(self, timeout_s: float, *, farewell: bool) -> None:
        if self._closed:
            return
        self._closed = True
        self._forgotten.detach()
        with self._opened:
            self._sender.close(timeout_s)
            if farewell and self.acknowledged.blocks:
                say_farewell(self._cluster, self._model.declaration.name, self.trainer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is None:
            return self.close()
        try:  # a trainer that breaks down has not ended, one that is told to end has
            self._close(1.0, farewell=isinstance(error, KeyboardInterrupt | SystemExit))
        except EkkoError as lost:
            error.add_note(f"closing the publisher: {lost.message}")
        return None
