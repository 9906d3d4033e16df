"""Committing memory before it is written: a first touch costs the writer 1 to 12 us a page (measured).

Rows, journal entries and index pages are all used in ascending order, so what comes next is known.
"""

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ekko.storage.engine.memory import Array

_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE, Linux 5.14 and later; elsewhere the call fails and pages come with their first touch."""

_STEP = 2 << 20
_AHEAD = 128 << 20
_AHEAD_SHARE = 8
"""At most an eighth of what is in use, and 128 MiB, is committed ahead: memory that no bound counts."""

_SMALL = 16 << 20
"""Arrays that use less are left alone: their page faults are few."""


@dataclass(slots=True)
class Frontier:
    """An array that fills from its beginning; `used` tells how many bytes are in use."""

    array: Array
    used: Callable[[], int]
    committed: int = 0

    def behind(self) -> bool:
        """Whether less than half of the run-up is left."""
        used = self.used()
        return used > _SMALL and self.committed < min(used + _ahead(used) // 2, self.array.nbytes)

    def advance(self) -> bool:
        """Commit one step more; whether there is more to do."""
        used = self.used()
        start = max(self.committed, used - used % _STEP)
        end = min(start + _STEP, self.array.nbytes)
        if start >= min(used + _ahead(used), self.array.nbytes):
            return False
        self.committed = end
        address = ctypes.c_void_p(self.array.ctypes.data + start)
        return bool(_madvise()(address, ctypes.c_size_t(end - start), _POPULATE_WRITE) == 0)


class Prefaulter:
    """One thread that keeps frontiers ahead of their use; it is started when there is something to do."""

    def __init__(self) -> None:
        self._frontiers: list[Frontier] = []
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def watch(self, array: Array, used: Callable[[], int]) -> None:
        """Keep pages of `array` committed ahead of `used()` bytes."""
        self._frontiers.append(Frontier(array, used))

    def notice(self) -> None:
        """Look whether something has come close to its frontier; cheap, for the writer to call after it has grown."""
        if any(frontier.behind() for frontier in self._frontiers):
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ekko-prefault", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait()
            self._wake.clear()
            busy = True
            while busy and not self._stopped:
                busy = sum(frontier.advance() for frontier in self._frontiers if frontier.behind()) > 0


def _ahead(used: int) -> int:
    return min(_AHEAD, used // _AHEAD_SHARE)


def _madvise() -> Callable[..., int]:
    madvise: Callable[..., int] = ctypes.CDLL(None).madvise
    return madvise
