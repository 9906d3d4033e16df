"""Runs the services of a compose file as processes of this machine, with their commands, variables and conditions.

Paths below a volume become folders, ports of containers become free ports of loopback, names of services become
loopback. A service that names a port that no service exposes, or a path outside of its volumes, has no counterpart here
and fails, as it would there.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

from ekko.ops.watcher import dismiss, start_watched
from tests.ports import free_port

LOOPBACK = "127.0.0.1"
INHERITED = re.compile(r"HOME|LANG|EKKO_CACHE|(PIP|SSL|REQUESTS)_\w*|\w*PROXY", re.IGNORECASE)
"""Where this machine keeps things and how it reaches a registry; of all else a service sees only its own variables."""
PROGRAMS = Path(sys.executable).parent
MOST_RESTARTS = 3
"""While a service becomes healthy; more often, and it never would."""


class Containers:
    """The services of a project; a context manager that stops all of them in good order.

    Args:
        project: as `compose_file.project` gives it.
        entrypoint: of the image.
        folder: empty; gets volumes and logs.
    """

    def __init__(self, project: dict[str, Any], entrypoint: list[str], folder: Path) -> None:
        self.services: dict[str, dict[str, Any]] = project["services"]
        self.folder, self._entrypoint = folder, entrypoint
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watchers: list[subprocess.Popen[bytes]] = []
        self._ended: Counter[str] = Counter()
        self.ports = {place: free_port() for place in self._exposed()}
        names = "|".join(sorted(self.services, key=len, reverse=True))
        self._address = re.compile(rf"(?<![\w.-])({names}|0\.0\.0\.0|127\.0\.0\.1|localhost)('?[:,] ?)(\d+)\b")

    def _exposed(self) -> list[tuple[str, int]]:
        return [
            (name, int(port))
            for name, service in self.services.items()
            for port in [*(each["target"] for each in service.get("ports", [])), *service.get("expose", [])]
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.kill()
            process.wait()
        for watcher in self._watchers:
            dismiss(watcher)

    def volume(self, name: str) -> Path:
        """The folder of a named volume."""
        folder = self.folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def address(self, service: str, port: int) -> str:
        """Where a port of a service is reached."""
        return f"{LOOPBACK}:{self.ports[service, port]}"

    def local(self, name: str, text: str) -> str:
        """A word of a service's command or environment as it reads on this machine."""
        for mount in self.services[name].get("volumes", []):
            folder = self.volume(mount["source"])
            text = re.sub(rf"(?<![\w./]){re.escape(mount['target'])}(?![\w.-])", str(folder), text)
        if text.startswith(("--port=", "--metrics-port=")):
            option, _, port = text.partition("=")
            return f"{option}={self.ports[name, int(port)]}"

        def moved(found: re.Match[str]) -> str:
            host, between, port = found.groups()
            owner = host if host in self.services else name
            return f"{LOOPBACK}{between}{self.ports[owner, int(port)]}"

        return self._address.sub(moved, text)

    def environment(self, name: str) -> dict[str, str]:
        """What a service's processes see: its own variables, and from this machine only how to run programs at all."""
        inherited = {key: value for key, value in os.environ.items() if INHERITED.fullmatch(key)}
        own = {key: self.local(name, value) for key, value in self.services[name].get("environment", {}).items()}
        return {**inherited, **own, "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}

    def workdir(self, name: str) -> Path:
        """The folder that is /data in its container."""
        mounts = {mount["target"]: mount["source"] for mount in self.services[name].get("volumes", [])}
        return self.volume(mounts.get("/data", f"none-{name}"))

    def run(self, name: str, *command: str, timeout_s: float = 180.0) -> "subprocess.CompletedProcess[str]":
        """Run a program in a service's surroundings, as `docker compose exec` does."""
        return subprocess.run(
            [self.local(name, word) for word in command],
            env=self.environment(name),
            cwd=self.workdir(name),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def log(self, name: str) -> str:
        """The end of what a service wrote."""
        return (self.folder / f"{name}.log").read_text()[-3_000:]

    def up(self, deadline: float) -> None:
        """Start everything, each service once what it depends on is as it demands."""
        for name in self.services:
            self._start(name, deadline)

    def _start(self, name: str, deadline: float) -> None:
        if name in self.processes:
            return
        for other, condition in self.services[name].get("depends_on", {}).items():
            self._start(other, deadline)
            {
                "service_started": lambda _name, _deadline: None,
                "service_healthy": self.await_healthy,
                "service_completed_successfully": self.await_completed,
            }[condition["condition"]](other, deadline)
        self._run(name)

    def _run(self, name: str) -> None:
        command = [self.local(name, word) for word in [*self._entrypoint, *self.services[name]["command"]]]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name], watcher = start_watched(
                command, log, folder=self.workdir(name), environment=self.environment(name)
            )
        self._watchers.append(watcher)

    def await_healthy(self, name: str, deadline: float) -> None:
        """Wait until the service's health check passes."""
        kind, *test = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        while True:
            checked = self.run(name, *test)
            if checked.returncode == 0:
                return
            if self.processes[name].poll() is not None:
                self._run_again(name)
            assert time.monotonic() < deadline, (
                f"{name} is not healthy: {checked.stdout}{checked.stderr}\n{self.log(name)}"
            )
            time.sleep(0.2)

    def _run_again(self, name: str) -> None:
        """As the file says: on a busy machine one that finds no broker in time ends, and is started again."""
        self._ended[name] += 1
        policy, code = self.services[name]["restart"], self.processes[name].returncode
        again = policy == "unless-stopped" or (policy == "on-failure" and code)
        assert again, f"{name} has ended with {code}:\n{self.log(name)}"
        assert self._ended[name] <= MOST_RESTARTS, f"{name} ends again and again, with {code}:\n{self.log(name)}"
        self._run(name)

    def await_completed(self, name: str, deadline: float) -> None:
        """Wait until the service has ended with exit code 0."""
        try:
            code = self.processes[name].wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        assert code == 0, f"{name}: exit code {code}\n{self.log(name)}"

    def down(self, timeout_s: float) -> dict[str, int | None]:
        """Ask every service that runs to end, the last started first; exit codes, None for one that hangs."""
        codes: dict[str, int | None] = {}
        for name, process in reversed(self.processes.items()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    codes[name] = process.wait(timeout_s)
                except subprocess.TimeoutExpired:
                    codes[name] = None
        return codes
