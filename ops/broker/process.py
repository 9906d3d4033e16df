"""The broker's process: start, stop, kill, start again on the same ports and data."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from ekko.ops.broker import ports
from ekko.ops.broker.distribution import MAIN_CLASS, Distribution, load
from ekko.ops.broker.errors import BrokerError
from ekko.ops.broker.folder import DataFolder, Running
from ekko.ops.watcher import dismiss, start_watched

READY_LINE = b"Kafka Server started"
POLL_S = 0.02
ORPHAN_TIMEOUT_S = 30.0
"""The watcher's own patience (10 s between SIGTERM and SIGKILL) and some more."""


class Broker:
    """A real Apache Kafka of one node (broker and controller in one JVM) on loopback.

    Usable as a context manager. `kill` followed by `start` is a crash and a restart on the same ports and data.

    Args:
        data: data folder, made if absent; a folder of an earlier run is taken up again with all it holds.
        port: where clients connect; None is the port of the folder's last run if that is free, else any free one.
        host: address to listen on; loopback unless told otherwise.
        properties: broker settings over those of `resources/server.properties`; `{port}` and the like are filled in.
        distribution: Kafka and Java; by default what `ekko broker --prepare` has prepared.
        heap_mb: limit of the Java heap, MiB.
        jvm_flags: further flags; they take the place of the archive of loaded classes.
        start_timeout_s, stop_timeout_s: seconds until a start is an error, and until SIGTERM is followed by SIGKILL.
    """

    def __init__(
        self,
        data: Path,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        properties: Mapping[str, str] | None = None,
        distribution: Distribution | None = None,
        heap_mb: int = 256,
        jvm_flags: tuple[str, ...] = (),
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 20.0,
    ) -> None:
        self.folder = DataFolder(data.absolute())
        self.host = host
        self._wanted_port = port
        self._port: int | None = None
        self._controller_port: int | None = None
        self._properties = dict(properties or {})
        self._distribution = distribution
        self._heap_mb = heap_mb
        self._jvm_flags = jvm_flags
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Return `host:port` for clients (known from the first start on)."""
        if self._port is None:
            raise BrokerError("the broker has not been started, so it has no address yet", hint="Call start() first.")
        return f"{self.host}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Return the process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Return whether the process lives."""
        return self.pid is not None

    def start(self) -> None:
        """Start and return once clients can connect (1.5 s on a small machine).

        Raises:
            BrokerError: nothing is prepared, the folder is in use, the port is taken, or the broker ended or was not
                ready in time; the message then carries the end of its log.
        """
        if self.running:
            return
        self._end(signal.SIGKILL)  # what a broker that ended by itself has left
        distribution = self._distribution or load()
        self.folder.await_orphan(ORPHAN_TIMEOUT_S)
        self._refuse_second_broker()
        port, controller_port = self._choose_ports()
        self.folder.lay(distribution.home)
        self.folder.write_properties(self.host, port, controller_port, self._properties)
        command = distribution.command(
            MAIN_CLASS, str(self.folder.properties), heap_mb=self._heap_mb, flags=self._jvm_flags
        )
        with self.folder.log.open("ab") as log:
            logged_before = log.tell()
            self._process, self._watcher = start_watched(command, log, folder=self.folder.path)
        self._port, self._controller_port = port, controller_port
        self.folder.write_running(Running(self._process.pid, port, controller_port, os.getpid()))
        try:
            self._await_ready(logged_before)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after `stop_timeout_s`; it may be started again and has all it acknowledged."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._end(signal.SIGKILL)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the process ends; return its exit code, or None when the time is over first."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def log_tail(self) -> str:
        """Return the last lines that the broker wrote."""
        return self.folder.log_tail(0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _refuse_second_broker(self) -> None:
        pid = self.folder.living_pid()
        if pid is not None:
            raise BrokerError(
                f"a broker (pid {pid}) already runs on {self.folder.path}",
                hint=f"Stop it with `kill {pid}`, use it with --bootstrap, or name another folder with --data.",
            )

    def _choose_ports(self) -> tuple[int, int]:
        """Return the client and the controller port: those of the last start, else as wished, else free ones."""
        if self._port is not None and self._controller_port is not None:
            wanted = (self._port, self._controller_port)
        else:
            last = self.folder.last_run()
            old = last.port if last is not None and ports.is_free(self.host, last.port) else None
            port = self._wanted_port or old or ports.free(self.host)
            controller_port = ports.free("127.0.0.1")
            while controller_port == port:
                controller_port = ports.free("127.0.0.1")
            wanted = (port, controller_port)
        for number in wanted:
            ports.require_free(self.host, number, wait_s=2.0)
        return wanted

    def _await_ready(self, logged_before: int) -> None:
        assert self._process is not None
        assert self._port is not None
        deadline = time.monotonic() + self._start_timeout_s
        while not (self._logged_ready(logged_before) and ports.accepts(self.host, self._port)):
            code = self._process.poll()
            if code is not None:
                raise self._failed(f"ended with code {code} while starting", logged_before)
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {self._start_timeout_s:g} s", logged_before)
            time.sleep(POLL_S)

    def _logged_ready(self, logged_before: int) -> bool:
        with self.folder.log.open("rb") as log:
            log.seek(logged_before)
            return READY_LINE in log.read()

    def _failed(self, what: str, logged_before: int) -> BrokerError:
        return BrokerError(
            f"the broker on {self.folder.path} {what}; its log ends:\n{self.folder.log_tail(logged_before)}",
            hint=f"The whole log is {self.folder.log}. If the folder is damaged, move it away or take another: --data.",
        )

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, how)
            try:
                process.wait(self._stop_timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(self._stop_timeout_s)
        if self._watcher is not None:
            dismiss(self._watcher)
            self._watcher = None
