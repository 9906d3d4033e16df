"""All regions' announcements; each region has a thread of its own, so that one that is down holds up nothing."""

import threading
import time
from collections.abc import Iterable, Mapping

from ekko.schemas.codec import Codec
from ekko.schemas.declarations import RegionDeclaration
from ekko.streams.manager.members import Connect, MembersView
from ekko.streams.manager.rollback import Region

_POLL_S = 0.2


class Regions:
    """The regions of the catalogue and what their replicas announced last.

    Args:
        connect: makes a connection to a region's cluster.
        codec: knows the catalogue's writer schemas.
        retry_s: pause after a failure before a region is tried again.
    """

    def __init__(self, connect: Connect, codec: Codec, retry_s: float = 1.0) -> None:
        self._connect, self._codec, self._retry_s = connect, codec, retry_s
        self._views: dict[str, MembersView] = {}
        self._stop = threading.Event()
        self._heard = threading.Event()
        self._started = False
        self._threads: list[threading.Thread] = []

    def follow(self, declared: Mapping[str, RegionDeclaration], models: Iterable[str] = ()) -> None:
        """Take up new regions, let go of those that are gone; learn how long each keeps the lanes of `models`."""
        for name, view in list(self._views.items()):
            if declared.get(name) != view.region:
                self._views.pop(name)
                view.stopped.set()
        for name, region in declared.items():
            if name not in self._views:
                self._views[name] = MembersView(self._connect, region, self._codec)
                if self._started:
                    self._start(self._views[name])
            self._views[name].models = frozenset(models)

    def start(self) -> None:
        """Listen in the background, to later regions too, until `close`."""
        self._started = True
        for view in self._views.values():
            self._start(view)

    def listen(self) -> bool:
        """Take in what is there without waiting; for those who do not call `start`."""
        heard = False
        for view in self._views.values():
            heard = view.step() or heard
        return heard

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for view in self._views.values():
            view.close()

    def wait(self, timeout_s: float) -> list[str]:
        """Wait until every region was read to the end it had at first; names those that were not in time.

        Args:
            timeout_s: for all of them together.
        """
        deadline = time.monotonic() + timeout_s
        for view in self._views.values():
            view.caught_up.wait(max(0.0, deadline - time.monotonic()))
        return sorted(name for name, view in self._views.items() if not view.caught_up.is_set())

    def await_news(self, timeout_s: float) -> None:
        """Return as soon as anything was announced since the last call, or in time. For one thread, after `start`."""
        self._heard.wait(timeout_s)
        self._heard.clear()

    def now(self) -> dict[str, Region]:
        """What every region's replicas announced last, by region."""
        return {
            name: Region(view.region.incarnation, tuple(view.members), bool(view.region.donor), view.kept_s)
            for name, view in self._views.items()
        }

    def _start(self, view: MembersView) -> None:
        thread = threading.Thread(target=self._listen, args=(view,), name=f"members-{view.region.name}")
        self._threads = [other for other in self._threads if other.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _listen(self, view: MembersView) -> None:
        while not self._stop.is_set() and not view.stopped.is_set():
            if view.step(_POLL_S):
                self._heard.set()
            if view.failure is not None:
                self._stop.wait(self._retry_s)
        view.close()
