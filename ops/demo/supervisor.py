"""Keeps the demo's processes alive: starts them, restarts what dies, stops all; leaves no orphans."""

import json
import threading
import time
from pathlib import Path
from typing import Self

from ekko.ops.demo.child import Child, ChildSpec
from ekko.schemas.errors import EkkoError

POLL_S = 0.05
STOP_TIMEOUT_S = 10.0
"""For all of them together; `ChildSpec.stop_s` is what one has in any case."""


class Supervisor:
    """Supervises processes in a thread of its own. Use as a context manager: on leaving, every process is stopped.

    ``<folder>/processes.json`` maps names to process ids at any time, ``<folder>/logs`` holds their output.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs = folder / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, Child] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._failure: EkkoError | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in reversed(self._children.values()):  # what was started last knows those before it
            child.stop(max(deadline - time.monotonic(), child.spec.stop_s))

    def start(self, spec: ChildSpec) -> None:
        """Start a process and supervise it from now on."""
        child = Child(spec, self._logs)
        with self._lock:
            child.start(time.monotonic())
            self._children[spec.name] = child
            self._write_processes()

    def stop(self, name: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop one process for good (SIGTERM, then SIGKILL)."""
        with self._lock:
            child = self._children[name]
            child.done = True
        child.stop(timeout_s)

    def running(self, name: str) -> bool:
        """Whether the process is still supervised: neither stopped nor done with its work."""
        return not self._children[name].done

    def restarts(self) -> dict[str, int]:
        """How often each process was started again, by name."""
        with self._lock:
            return {name: child.restarts for name, child in self._children.items()}

    def check(self) -> None:
        """Raise what made the supervisor give up, if anything did.

        Raises:
            ProcessFailed: a process keeps dying.
        """
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            with self._lock:
                try:
                    changes = [child.tend(time.monotonic()) for child in self._children.values()]
                except EkkoError as failure:
                    self._failure = failure
                    return
                if any(changes):
                    self._write_processes()

    def _write_processes(self) -> None:
        processes = {name: child.pid for name, child in self._children.items()}
        partial = self._folder / "processes.json.new"
        partial.write_text(json.dumps(processes))
        partial.replace(self._folder / "processes.json")
