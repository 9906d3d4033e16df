"""A link to a broker whose conditions a test sets, and a broker that is reached over it."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Self

from ekko.ops.broker import Broker
from tests.ports import free_port


class Carried(NamedTuple):
    """Bytes that crossed a link: towards the broker, and from it."""

    up: int
    down: int


class Link:
    """A proxy process in front of a port; a context manager.

    Args:
        port: where clients connect; target: the port behind it, on loopback.
    """

    def __init__(self, port: int, target: int) -> None:
        command = [sys.executable, "-m", "tests.network.proxy", str(port), "127.0.0.1", str(target)]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        self.bootstrap = f"127.0.0.1:{port}"
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def limit(self, bytes_per_s: float) -> None:
        """Let so much through in each direction; 0: everything."""
        self._tell(f"rate {bytes_per_s}")

    def delay(self, seconds: float) -> None:
        """Deliver so much later, each way."""
        self._tell(f"delay {seconds}")

    def cut(self) -> None:
        """End all connections and refuse new ones until `heal`."""
        self._tell("cut")

    def heal(self) -> None:
        """Accept connections again."""
        self._tell("heal")

    def carried(self) -> Carried:
        """What has crossed the link so far."""
        return self._tell("carried")

    def _tell(self, line: str) -> Carried:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        up, down = self._process.stdout.readline().split()
        return Carried(int(up), int(down))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(120)
        self._process.stdout.close()


class FarBroker:
    """A broker with a second listener that is reached only over a link; a context manager. Who is near uses the first.

    Attributes:
        near: bootstrap address of the first listener; link: to the second one.
    """

    def __init__(self, data: Path) -> None:
        self._inner, self._outer = free_port(), free_port()
        self.broker = Broker(
            data,
            properties={
                "listeners": f"PLAINTEXT://{{host}}:{{port}},FAR://{{host}}:{self._inner},"
                "CONTROLLER://{host}:{controller_port}",
                "advertised.listeners": f"PLAINTEXT://{{host}}:{{port}},FAR://{{host}}:{self._outer}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "PLAINTEXT",
            },
        )

    @property
    def near(self) -> str:
        """Bootstrap address without the link."""
        return self.broker.bootstrap

    def __enter__(self) -> Self:
        self.broker.start()
        self.link = Link(self._outer, self._inner)
        return self

    def __exit__(self, *_: object) -> None:
        self.link.__exit__()
        self.broker.stop()
