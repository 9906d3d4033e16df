"""`ekko store` as a real process, for tests that kill it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import urllib3

from ekko.ops.broker import Broker
from ekko.schemas.errors import EkkoError
from ekko.storage.client import StoreClient
from tests.ports import free_port
from tests.waiting import PATIENCE_S

_PROGRAM = "from ekko.ops.cli import main; main()"


class StoreChild:
    """Starts at once; `log` holds what it says."""

    def __init__(self, broker: Broker, region: str, folder: Path, *flags: str, replica: str = "a") -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder.with_suffix(f".{time.monotonic_ns()}.log")
        arguments = ["store", "--bootstrap", broker.bootstrap, "--region", region, "--replica", replica]
        where = ["--data", str(folder), "--port", self.address.rpartition(":")[2]]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *arguments, *where, *flags], stdout=log, stderr=log
            )

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a page; status 0 if nobody answers."""
        try:
            reply = urllib3.request("GET", f"http://{self.address}{path}", retries=False, timeout=30.0)
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return reply.status, json.loads(reply.data)

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Until the condition holds; an EkkoError means not yet."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(EkkoError):
                if condition():
                    return
            assert self.process.poll() is None, f"{what}: it ended\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s\n{self.log.read_text()}"
            time.sleep(0.02)

    def wait_ready(self, model: str) -> None:
        """Until this model is served, too: a lookup is answered. Pages about health may not know of a new model yet."""

        def serves() -> bool:
            if self.get("/ready")[0] != 200:
                return False
            with self.client(model) as client:
                client.state()
            return True

        self.wait("ready", serves)

    def client(self, model: str, timeout_s: float = 30.0) -> StoreClient:
        return StoreClient("east", model, stores=[self.address], timeout_s=timeout_s)

    def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        self.process.wait(120)

    def end(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)
