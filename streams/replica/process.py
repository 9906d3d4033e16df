"""The process `ekko store`: all models of a region at one replica, their HTTP server, announcements, watchdog.

The main thread keeps house, a few times a second; each model has its apply thread, the server has one. What cannot be
mended ends the process with an error, so that whoever runs it notices and starts it anew: nothing is lost by that.
"""

import logging
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConnectionFailed, EkkoError, TopicMissing
from ekko.storage.disk.data_folder import folder_name
from ekko.storage.disk.folder_lock import FolderLock
from ekko.storage.disk.snapshots import SNAPSHOTS, Schedule
from ekko.storage.serving.server import build_app
from ekko.storage.serving.server_thread import ServerThread
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Cluster
from ekko.streams.replica.groups import StoreGroups
from ekko.streams.replica.health import StoreHealth
from ekko.streams.replica.membership import Membership, standing, unready
from ekko.streams.replica.metrics import ModelMetrics, StoreMetrics
from ekko.streams.replica.model_runner import ModelRunner
from ekko.streams.replica.reports import Reports
from ekko.streams.replica.served import RegionServed, without_runs
from ekko.streams.replica.signal_relay import SignalRelay

_log = logging.getLogger("ekko.store")

_TICK_S = 0.2
_ANNOUNCE_S = 1.0
_END_TIMEOUT_S = 20.0
"""For the last flush of every model; what is not flushed is read again from the lanes."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How one replica runs.

    Attributes:
        region, replica: who it is; a replica's name is its own within the region.
        shards: shards that it owns of every model; None for all.
        data: folder; host, port: of its server (port 0: a free one).
        advertise: host:port told to clients; None for the address of the server.
        memory_bytes: bound of each model's rows, index and journals.
        stall_s: without progress for so long, though there is lag, it says that it is unhealthy; three times as long,
            and it ends.
        snapshot_every_s, snapshots_kept: how often a snapshot is taken of every model, and how many are kept.
        witness: the only model that it holds, and the state of it that it serves; it is no member of the region then.
    """

    region: str
    replica: str
    data: Path
    shards: frozenset[int] | None = None
    host: str = "127.0.0.1"
    port: int = 7070
    advertise: str | None = None
    memory_bytes: int = 4 * 1024**3
    stall_s: float = 20.0
    snapshot_every_s: float = 600.0
    snapshots_kept: int = 6
    witness: tuple[str, int] | None = None


class StoreProcess:
    """One replica.

    Args:
        cluster: the region's; signals go there, too, and its fan-out passes them on.

    Raises:
        StoreLocked: another process has the data folder.
        ConfigurationError: the address cannot be bound, or the region is not declared.
        ConnectionFailed, TopicMissing: the cluster cannot be read, or holds no catalogue.
    """

    def __init__(self, cluster: Cluster, settings: StoreSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._lock = FolderLock(settings.data, f"replica {settings.replica} of region {settings.region}")
        self._server = ServerThread(settings.host, settings.port)
        self._catalogue = SharedCatalogue(cluster)
        self._catalogue.refresh()
        self._region = self._catalogue.region(settings.region)
        self._myself = unready(settings.region, settings.replica, self.address, time.time_ns() // 1_000)
        self._membership = Membership(cluster, self._myself, alone=settings.witness is not None)
        self._signals = SignalRelay(cluster)
        self._reports = Reports(settings.region, settings.replica, self._signals.put)
        self._metrics = StoreMetrics()
        self._metrics.memory_limit.set(settings.memory_bytes)
        self._wake = threading.Event()
        self._health = StoreHealth(cluster, settings.region, self._metrics, settings.stall_s)
        self._served = RegionServed(self._membership.members, self._signals.put, lambda: self._health.told)
        self._groups = StoreGroups(cluster, self._region, settings.replica, settings.data)
        self._announced_s = 0.0
        self._unserved: dict[str, str] = {}

    @property
    def address(self) -> str:
        """host:port where clients reach it."""
        return self._settings.advertise or self._server.address

    @property
    def runners(self) -> dict[str, ModelRunner]:
        """The models it runs."""
        return dict(self._served.runners)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop`.

        Raises:
            EkkoError: something that only a new start can mend.
        """
        _log.info("replica %s of region %s on %s", self._settings.replica, self._settings.region, self.address)
        self._follow_catalogue()
        app = build_app(self._served, self._metrics, self._metrics.registry, self._settings.region)
        self._server.start(app)
        try:
            while not stop.is_set():
                self._tick()
                self._wait(stop)
        finally:
            self._end()
        for runner in self.runners.values():
            if runner.failure is not None:  # the last flush: nothing is lost, but somebody should look at the disk
                raise runner.failure

    def _wait(self, stop: threading.Event) -> None:
        """Until something changes or a tick is over; `stop` is looked at often, for a signal sets nothing else."""
        deadline = time.monotonic() + _TICK_S
        while not stop.is_set() and not self._wake.is_set() and time.monotonic() < deadline:
            self._wake.wait(0.05)

    def _tick(self) -> None:
        changed = self._wake.is_set()
        self._wake.clear()
        try:
            self._catalogue.poll()
            self._follow_catalogue()
            self._membership.listen()
        except ConnectionFailed as error:
            _log.warning("%s", error)
        self._check_threads()
        rival = self._membership.rival
        remarks = [f"{rival} announces itself under the name of this replica"] if rival else []
        remarks += [trouble for trouble in (self._membership.trouble, self._signals.trouble) if trouble]
        self._health.update(self.runners, [*remarks, *self._unserved.values()], self._signals.dropped)
        if changed or time.monotonic() - self._announced_s >= _ANNOUNCE_S:
            self._announce()
        self._signals.pass_on()
        self._groups.step(self.runners.values())

    def _follow_catalogue(self) -> None:
        """Start models that are new, end those that are gone.

        Raises:
            EkkoError: the region itself is gone, or another one has its name now.
        """
        if self._catalogue.regions.get(self._region.name) != self._region:
            raise EkkoError(f"region {self._region.name} was deleted or declared anew", hint="start this store anew")
        declared = {name: model for name, model in self._catalogue.models.items() if self._is_held(name)}
        runners = self.runners
        for name, runner in list(runners.items()):
            live = declared.get(name)
            if live is None or live.incarnation != runner.model.incarnation:
                _log.info("model %s is deleted", name)
                self._drop(runners.pop(name))
        for name, model in declared.items():
            shards = self._owned(model)
            if name not in runners and shards:
                runners[name] = self._start(model, shards)
        self._served.runners = runners
        self._note_unserved(declared.values())

    def _is_held(self, model: str) -> bool:
        return self._settings.witness is None or self._settings.witness[0] == model

    def _note_unserved(self, models: Iterable[ModelDeclaration]) -> None:
        """Models of which this replica's shards are none: right for small models, but also what a typo looks like."""
        unserved = {
            model.name: f"model {model.name} is not served here: its shards are 0 to {model.shards - 1}, "
            f"this replica's are {', '.join(map(str, sorted(self._settings.shards or ())))} (--shards)"
            for model in models
            if not self._owned(model)
        }
        for name in unserved.keys() - self._unserved.keys():
            _log.warning("%s", unserved[name])
        self._unserved = unserved

    def _owned(self, model: ModelDeclaration) -> frozenset[int]:
        everything = frozenset(range(model.shards))
        return everything if self._settings.shards is None else self._settings.shards & everything

    def _start(self, model: ModelDeclaration, shards: frozenset[int]) -> ModelRunner:
        folder = self._settings.data / folder_name(model, self._region)
        _log.info("model %s: shards %s in %s", model.name, sorted(shards), folder)
        runner = ModelRunner(
            self._cluster,
            self._region,
            model,
            self._catalogue,
            ModelMetrics(self._metrics, model.name),
            folder=folder,
            shards=shards,
            memory_bytes=self._settings.memory_bytes,
            changed=self._wake.set,
            snapshots=Schedule(
                self._settings.data / SNAPSHOTS / folder.name,
                every_s=self._settings.snapshot_every_s,
                keep=self._settings.snapshots_kept,
            ),
            check=lambda state: self._groups.refuse_reset(model, state),
            witness=None if self._settings.witness is None else self._settings.witness[1],
        )
        runner.start()
        return runner

    def _drop(self, runner: ModelRunner) -> None:
        """End a deleted model and remove what it kept: its incarnation never comes back."""
        runner.ask_to_end()
        if runner.join(_END_TIMEOUT_S):
            shutil.rmtree(runner.folder, ignore_errors=True)
            shutil.rmtree(self._settings.data / SNAPSHOTS / runner.folder.name, ignore_errors=True)
        self._health.forget(runner.model.name)

    def _check_threads(self) -> None:
        """End the process where a thread has ended that should not have; what ended it is the reason.

        Raises:
            EkkoError: the reason.
        """
        for name, runner in self.runners.items():
            if runner.running:
                continue
            if isinstance(runner.failure, TopicMissing) and self._is_deleted(runner.model):
                continue  # its topics were gone before the catalogue was read; it is dropped with the next tick
            if isinstance(runner.failure, EkkoError):
                raise runner.failure
            raise EkkoError(f"model {name}: the apply loop ended: {runner.failure!r}") from runner.failure
        if not self._server.alive:
            raise EkkoError(f"the HTTP server on {self.address} has ended", hint="see the log above")

    def _is_deleted(self, model: ModelDeclaration) -> bool:
        self._catalogue.refresh()
        live = self._catalogue.models.get(model.name)
        return live is None or live.incarnation != model.incarnation

    def _announce(self) -> None:
        self._announced_s = time.monotonic()
        states, durable = [], []
        for _, runner in sorted(self.runners.items()):
            if runner.applier is not None and runner.store is not None:
                states.append(without_runs(runner.applier.state))
                recoverable = runner.store.recoverable
                durable += [without_runs(recoverable)] if recoverable is not None else []
            self._reports.report(runner)
        told = self._health.told
        now = standing(
            self._myself,
            ready=told.ready,
            models=tuple(states),
            durable=tuple(durable),
            halted=told.halted,
            undone=tuple(
                void for one in self.runners.values() if one.applier is not None for void in one.applier.undone
            ),
        )
        self._membership.announce(now)

    def _end(self) -> None:
        """Stop serving, make durable what is applied, say goodbye."""
        self._server.stop()
        runners = self.runners
        for runner in runners.values():
            runner.ask_to_end()
        deadline = time.monotonic() + _END_TIMEOUT_S
        for name, runner in runners.items():
            if not runner.join(max(0.1, deadline - time.monotonic())):
                _log.error("model %s: the apply thread does not end; it will go on from the last flush", name)
        self._groups.close()
        self._membership.leave()
        self._signals.close()
        self._catalogue.close()
        self._lock.release()
