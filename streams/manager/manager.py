"""The state manager: all models of the catalogue, one beside the other."""

import logging
import threading
import time
from collections.abc import Callable

from ekko.schemas.errors import EkkoError
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster
from ekko.streams.manager import metrics
from ekko.streams.manager.members import Connect
from ekko.streams.manager.model import ModelManager
from ekko.streams.manager.regions import Regions
from ekko.streams.manager.settings import ManagerSettings

_log = logging.getLogger(__name__)
_IDLE_S = 0.05


class StateManager:
    """Writes barriers and model states of every model, and judges which states are healthy.

    Decisions are made in `step`, with the time as argument; `run` adds the clock and one thread a region that listens
    to its members, so that a region that is down holds up nothing.

    Args:
        central: the cluster of catalogue and source logs.
        connect: makes a connection to a region's cluster; by default every region is on the central one.
    """

    def __init__(
        self,
        central: Cluster,
        *,
        settings: ManagerSettings | None = None,
        clock: Callable[[], float] = time.time,
        connect: Connect | None = None,
    ) -> None:
        self.models: dict[str, ModelManager] = {}
        self._central, self._clock = central, clock
        self._settings = settings or ManagerSettings()
        metrics.EPOCH_INTERVAL.set(self._settings.epoch_interval_s)
        self._catalogue = Catalogue(central)
        self._regions = Regions(connect or (lambda _: central), self._catalogue.codec, self._settings.retry_s)
        self._catalogue_due_s = 0.0
        self._catalogue_failure = ""

    def step(self, now_s: float) -> bool:
        """Do what is due for every model; returns whether anything was written.

        Args:
            now_s: seconds since 1970.
        """
        self._follow_catalogue(now_s)
        wrote = False
        regions = self._regions.now()
        for manager in self.models.values():
            wrote = manager.step(now_s, regions) or wrote
            metrics.show(manager, now_s)
        return wrote

    def listen(self) -> bool:
        """Take in the regions' announcements without waiting; only for those who do not call `run`."""
        return self._regions.listen()

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set."""
        self._regions.start()
        try:
            while not stop.is_set():
                if not self.step(self._clock()):
                    stop.wait(_IDLE_S)
        finally:
            self.close()

    def barrier_now(self, model: str) -> None:
        """Make the next barrier of `model` due at the next step."""
        self.models[model].barrier_now()

    def close(self) -> None:
        """Let go of every tenure and connection."""
        for manager in self.models.values():
            manager.close()
        self._regions.close()
        self._catalogue.close()

    def _follow_catalogue(self, now_s: float) -> None:
        if now_s < self._catalogue_due_s:
            return
        self._catalogue_due_s = now_s + self._settings.catalogue_interval_s
        try:
            self._catalogue.refresh(timeout_s=5.0)
        except EkkoError as error:
            if str(error) != self._catalogue_failure:
                _log.warning("catalogue cannot be read: %s", error)
            self._catalogue_failure = str(error)
            return
        self._catalogue_failure = ""
        self._follow_models()
        self._regions.follow(self._catalogue.regions, self.models)

    def _follow_models(self) -> None:
        declared = self._catalogue.models
        for name, manager in list(self.models.items()):
            if name not in declared or declared[name].incarnation != manager.model.incarnation:
                self.models.pop(name).close()
                metrics.forget(name)
        for name, model in declared.items():
            if name in self.models:
                self.models[name].model = model
            else:
                self.models[name] = ModelManager(
                    self._central, self._catalogue.codec, model, self._settings, self._catalogue_end
                )

    def _catalogue_end(self) -> int:
        self._catalogue.refresh(timeout_s=5.0)
        return self._catalogue.end
