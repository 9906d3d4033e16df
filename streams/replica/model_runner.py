"""One model at one replica, in a thread of its own: opens the store, applies for ever, answers what needs it still.

A thread a model: a model that is slow, or stands still, holds up no other.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import ConnectionFailed, NotReady, StoreUnwritable, TopicMissing
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.snapshots import Schedule, Snapshot
from ekko.storage.store import Store
from ekko.streams.applier import Applier
from ekko.streams.applier.intake import CatalogueView
from ekko.streams.log import Cluster
from ekko.streams.replica.metrics import ModelMetrics

_log = logging.getLogger("ekko.store")
_Answer = TypeVar("_Answer")

_IDLE_WAIT_S = 0.02
"""How long an idle step waits for express records; bulk records are looked for as often."""

_RETRY_S = 0.5

_CHECK_S = 30.0
"""A coordinator of consumer groups may take a while after its broker's start."""

_NEW_TOPICS_S = 10.0
"""A model may be read of in a mirrored catalogue a little before its topics are made in the region."""


class ModelRunner:
    """Runs one model until `stop`.

    Args:
        check: asked once the store is open, with its own state; what it raises ends the thread before anything is read.

    Attributes:
        applier, store: None until the store is open.
        failure: what ended the thread, if it was not `stop`.
        stepped_s: monotonic time of the last finished step.
    """

    def __init__(
        self,
        cluster: Cluster,
        region: RegionDeclaration,
        model: ModelDeclaration,
        catalogue: CatalogueView,
        metrics: ModelMetrics,
        *,
        folder: Path,
        shards: frozenset[int],
        memory_bytes: int,
        changed: Callable[[], None],
        snapshots: Schedule | None = None,
        check: Callable[[ReplicaState], None] = lambda _: None,
        witness: int | None = None,
    ) -> None:
        self.model = model
        self.metrics = metrics
        self.folder = folder
        self.applier: Applier | None = None
        self.store: Store | None = None
        self.failure: BaseException | None = None
        self.stepped_s = time.monotonic()
        self._cluster = cluster
        self.region = region.name
        self._region = region
        self._catalogue = catalogue
        self._shards = shards
        self._memory_bytes = memory_bytes
        self._changed = changed
        self._snapshots = snapshots
        self._check = check
        self._witness = witness
        self._told: tuple[object, ...] = ()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"ekko-{model.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def ask_to_end(self) -> None:
        """Let the thread end; it flushes what it has applied."""
        self._ending.set()

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def between_steps(self, call: Callable[[Store, Applier], _Answer], timeout_s: float) -> _Answer:
        """Run `call` in the apply thread, while the rows stand still, and return its answer.

        Raises:
            NotReady: not run within `timeout_s`, or the store is not open yet.
            Exception: whatever `call` raises.
        """
        future: Future[_Answer] = Future()
        self._calls.put(lambda: self._answer(future, call))
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise NotReady(f"model {self.model.name}: the apply loop did not answer within {timeout_s} s") from None

    def take_snapshot(self, timeout_s: float) -> Snapshot:
        """Flush what is applied, and take a snapshot of it; raises as `between_steps`, and StoreUnwritable."""

        def take(store: Store, applier: Applier) -> Snapshot:
            assert self._snapshots is not None
            if applier.stopped is None and (store.flushing or applier.state != store.flushed):
                store.flush(applier.state)
            return self._snapshots.take_now(store, time.time())

        return self.between_steps(take, timeout_s)

    def find_snapshot(self, taken_s: int) -> Snapshot | None:
        """The snapshot taken then, if it is still there; from any thread."""
        return None if self._snapshots is None else self._snapshots.find(taken_s)

    def _answer(self, future: "Future[_Answer]", call: Callable[[Store, Applier], _Answer]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            assert self.store is not None
            assert self.applier is not None
            future.set_result(call(self.store, self.applier))
        except Exception as error:  # noqa: BLE001 - it belongs to who asked
            future.set_exception(error)

    def _run(self) -> None:
        try:
            self._open()
            self._apply_until_ended()
        except BaseException as error:  # noqa: BLE001 - the process ends with it
            _log.critical("model %s: %s: %s", self.model.name, type(error).__name__, error)
            self.failure = error
        finally:
            if self.store is not None:
                with suppress(Exception):
                    self.store.close()
            self._changed()

    def _open(self) -> None:
        assert self._region.incarnation is not None
        self.store = Store.open(
            self.folder,
            self.model,
            sorted(self._shards),
            region_incarnation=self._region.incarnation,
            memory_bytes=self._memory_bytes,
        )
        self._check_start(self.store.state)
        self.stepped_s = time.monotonic()  # opening takes as long as there are rows to read, and is no stall
        self.applier = Applier(
            self._cluster,
            self._region,
            self.model,
            self.store,
            self._catalogue,
            observer=self.metrics,
            witness=self._witness,
        )

    def _check_start(self, state: ReplicaState) -> None:
        """Ask `check`; without an answer for long it is let be, for no row rests on it."""
        patient_until = time.monotonic() + _CHECK_S
        while not self._ending.is_set():
            try:
                return self._check(state)
            except ConnectionFailed as error:
                if time.monotonic() > patient_until:
                    _log.error("model %s: whether somebody reset its offsets is not known: %s", self.model.name, error)
                    return None
                self._ending.wait(_RETRY_S)
        return None

    def _apply_until_ended(self) -> None:
        assert self.applier is not None
        patient_until = time.monotonic() + _NEW_TOPICS_S
        while not self._ending.is_set():
            try:
                self.applier.step(time.time(), _IDLE_WAIT_S)
            except (ConnectionFailed, TopicMissing) as error:
                if isinstance(error, TopicMissing) and time.monotonic() > patient_until:
                    raise
                _log.warning("model %s: %s; trying again", self.model.name, error)
                self._ending.wait(_RETRY_S)
            if self.applier.stopped is not None:
                self._ending.wait(_IDLE_WAIT_S)
            self.stepped_s = time.monotonic()
            self._tell_changes()
            self._answer_calls()
            self._take_snapshot()
        self.applier.close()

    def _tell_changes(self) -> None:
        assert self.store is not None
        assert self.applier is not None
        # A pinned state in place of the live rows is served over HTTP only.
        serving = self.applier.ready and not self.applier.unserved and self.applier.served is None
        self.store.publish(self.applier.state, serving=serving)
        recoverable = self.store.recoverable
        voids = self.applier.state.voids, () if recoverable is None else recoverable.voids
        told = (self.applier.ready, voids, frozenset(self.applier.halted))
        if told != self._told:  # who rolls back waits for these to be announced
            self._told = told
            self._changed()

    def _take_snapshot(self) -> None:
        if self._snapshots is None or self.store is None:
            return
        try:
            taken = self._snapshots.step(self.store, time.time())
        except StoreUnwritable as error:
            _log.error("model %s: no snapshot was taken: %s", self.model.name, error)
        else:
            if taken is not None:
                _log.info(
                    "model %s: snapshot %s, complete at state %d", self.model.name, taken.path, taken.state.complete
                )

    def _answer_calls(self) -> None:
        with suppress(Empty):
            while True:
                self._calls.get_nowait()()
