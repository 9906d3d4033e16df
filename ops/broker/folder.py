"""A broker's data folder: identity, properties, log, and who runs on it.

<data>/log/               Kafka's own files
<data>/server.properties  written anew at each start
<data>/broker.log         output of every start, appended
<data>/broker.json        pid and ports of the last start
"""

import base64
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ekko.ops.broker.distribution import FORMATTED, MAIN_CLASS
from ekko.ops.broker.errors import BrokerError
from ekko.ops.broker.jars import RESOURCES

LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Running:
    """Who was last started on a folder."""

    pid: int
    port: int
    controller_port: int
    started_by: int


@dataclass(frozen=True)
class DataFolder:
    """Paths and files of one broker."""

    path: Path

    @property
    def properties(self) -> Path:
        """Return the path of server.properties."""
        return self.path / "server.properties"

    @property
    def log(self) -> Path:
        """Return the path of the broker's output."""
        return self.path / "broker.log"

    def lay(self, home: Path) -> None:
        """Make a new folder ready for its first start; leave one that Kafka has used as it is."""
        kafka = self.path / "log"
        if kafka.exists() and any(kafka.iterdir()):
            return
        new = self.path / "log.new"  # renamed when it is whole: a start that is killed here leaves nothing half done
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(home / FORMATTED, new)
        identity = {"version": "1", "cluster.id": _kafka_id(), "node.id": "1", "directory.id": _kafka_id()}
        (new / "meta.properties").write_text("".join(f"{key}={value}\n" for key, value in identity.items()))
        new.replace(kafka)

    def write_properties(self, host: str, port: int, controller_port: int, overrides: Mapping[str, str]) -> None:
        """Write server.properties: the template, this folder's ports, then the overrides.

        `{host}`, `{port}` and `{controller_port}` in an override stand for what was chosen: listeners name them.
        """
        own = {
            "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "log.dirs": str(self.path / "log"),
        }
        text = "\n".join(f"{key}={value}" for key, value in {**own, **overrides}.items())
        for word, chosen in (("{host}", host), ("{port}", port), ("{controller_port}", controller_port)):
            text = text.replace(word, str(chosen))
        self.properties.write_text((RESOURCES / "server.properties").read_text() + f"\n{text}\n")

    def write_running(self, running: Running) -> None:
        """Note pid and ports."""
        (self.path / "broker.json").write_text(json.dumps(asdict(running)))

    def last_run(self) -> Running | None:
        """Return who was last started here, dead or alive; None for a new folder or an unreadable note."""
        try:
            return Running(**json.loads((self.path / "broker.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def living_pid(self) -> int | None:
        """Return the pid of the broker that runs here now; a pid that another program has got since is stale."""
        living = self._living()
        return living.pid if living is not None else None

    def _living(self) -> psutil.Process | None:
        """Find the broker by its command line: whoever was killed before it could write the note has left one, too."""
        for process in psutil.process_iter(["cmdline", "status"]):
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and (process.info["cmdline"] or [])[-2:] == [MAIN_CLASS, str(self.properties)]:
                return process
        return None

    def await_orphan(self, timeout_s: float) -> None:
        """Wait until a broker whose starter was killed has ended: its watcher is stopping it now."""
        process, last = self._living(), self.last_run()
        if process is None:
            return
        try:
            if last is None or process.ppid() != last.started_by:
                process.wait(timeout_s)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired):
            return

    def log_tail(self, start: int) -> str:
        """Return the end of what was logged from the byte `start` on."""
        with self.log.open("rb") as handle:
            size = handle.seek(0, 2)
            handle.seek(max(start, size - LOG_TAIL_BYTES))
            return handle.read().decode(errors="replace").strip()


def parse_properties(texts: Iterable[str]) -> dict[str, str]:
    """Return broker settings of texts like "log.retention.hours=1"; raises BrokerError."""
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise BrokerError(f"--property {text!r} is no broker setting", hint="Write --property NAME=VALUE.")
        settings[name.strip()] = value.strip()
    return settings


def _kafka_id() -> str:
    """Return a random Kafka uuid; one that starts with a dash would be read as an option by Kafka's own commands."""
    return "E" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
