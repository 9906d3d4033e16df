"""One process of the demo: started, watched, started again when it dies."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ekko.ops.watcher import dismiss, start_watched
from ekko.schemas.errors import EkkoError

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0
STEADY_S = 10.0
"""A process that has lived this long is in order again: the next restart is at once."""
GIVE_UP_AFTER = 30
"""Deaths in a row, none of them after a steady time: over half a minute of trying."""
TAIL_BYTES = 2_000


class ProcessFailed(EkkoError):
    """A process of the demo keeps dying."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start a process.

    Attributes:
        name: unique; also the name of its log file.
        command: program and arguments.
        environment: variables over those of the supervisor.
        ends: exit code 0 means that its work is done; else every exit is followed by a restart.
        stop_s: it has this long from SIGTERM to SIGKILL, however long others have taken to stop before it.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ends: bool = False
    stop_s: float = 0.0


class Child:
    """A supervised process; its output goes to ``<logs>/<name>.log``. Times are seconds of any steady clock."""

    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.restarts = 0
        self.done = False
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._due_s: float | None = None
        self._deaths_in_a_row = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, now_s: float) -> None:
        """Start it, in a session of its own: Ctrl-C reaches the supervisor, which stops all in good order."""
        environment = {**os.environ, **self.spec.environment}
        with self.log.open("ab") as log:
            self._process, self._watcher = start_watched(self.spec.command, log, environment=environment)
        self._started_s = now_s
        self._due_s = None

    def tend(self, now_s: float) -> bool:
        """Start it again if it has died and its delay is over; whether anything changed.

        Raises:
            ProcessFailed: it keeps dying; the message ends with its log.
        """
        if self.done or self.pid is not None:
            return False
        if self._due_s is None:
            return self._note_death(now_s)
        if now_s < self._due_s:
            return False
        self.restarts += 1
        self.start(now_s)
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self, timeout_s: float) -> None:
        """SIGTERM, SIGKILL after ``timeout_s``; it is not started again."""
        self.done = True
        self.signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(max(timeout_s, 0.0))
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._dismiss_watcher()

    def log_tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace").strip() if self.log.exists() else ""

    def _note_death(self, now_s: float) -> bool:
        self._dismiss_watcher()
        code = self._process.returncode if self._process is not None else None
        if code == 0 and self.spec.ends:
            self.done = True
            return True
        self._deaths_in_a_row = 1 if now_s - self._started_s >= STEADY_S else self._deaths_in_a_row + 1
        if self._deaths_in_a_row >= GIVE_UP_AFTER:
            raise ProcessFailed(
                f"{self.spec.name} died {self._deaths_in_a_row} times in a row (exit code {code}); its log ends:\n"
                f"{self.log_tail()}",
                hint=f"the whole log is {self.log}",
            )
        self._due_s = now_s + min(FIRST_DELAY_S * 2.0 ** (self._deaths_in_a_row - 1), LONGEST_DELAY_S)
        return True

    def _dismiss_watcher(self) -> None:
        if self._watcher is not None:
            dismiss(self._watcher)
            self._watcher = None
