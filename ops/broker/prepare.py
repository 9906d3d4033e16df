"""Prepare a distribution: fetch jars and Java, format a folder, train the archive of loaded classes."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ekko.ops.broker import jars
from ekko.ops.broker import java as java_runtime
from ekko.ops.broker.distribution import FORMATTED, Distribution, home, load, save
from ekko.ops.broker.errors import BrokerError
from ekko.ops.broker.jars import Report
from ekko.ops.broker.process import Broker


def prepare(report: Report) -> Distribution:
    """Fetch jars and Java, format a folder, train the archive; each step only if it is still to do.

    Raises:
        BrokerError: a registry can't be reached, or Kafka does not run here.
    """
    if os.name != "posix":
        raise BrokerError(
            "the local broker runs on Linux and macOS only", hint="Use a cluster of your own: --bootstrap HOST:PORT."
        )
    try:
        return load()
    except BrokerError:
        pass
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock"):
        try:
            return load()  # another clone has done it while this one waited
        except BrokerError:
            pass
        java = java_runtime.provide(folder / "java", report)
        if jars.missing(folder / "libs"):
            jars.fetch(folder / "libs", report)
        distribution = Distribution(folder, java, None)
        _format(distribution)
        report(f"archive of loaded classes for Java {java.major} (starts the broker twice as fast)")
        save(replace(distribution, archive=_train(distribution)))
    return load()


def _format(distribution: Distribution) -> None:
    """Let Kafka format a folder once; brokers copy it and write identities of their own."""
    target = distribution.home / FORMATTED
    if target.exists():
        return
    with tempfile.TemporaryDirectory(prefix="ekko-format-") as scratch:
        properties = Path(scratch, "server.properties")
        voters = "controller.quorum.voters=1@127.0.0.1:9093"
        listeners = "listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
        template = (jars.RESOURCES / "server.properties").read_text()
        properties.write_text(f"{template}\n{voters}\n{listeners}\nlog.dirs={scratch}/log\n")
        command = distribution.command("kafka.tools.StorageTool", "format", "-t", "A" * 22, "-c", str(properties))
        result = subprocess.run(
            command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
        )
        if result.returncode != 0:
            raise BrokerError(
                f"Kafka could not format a folder: {result.stdout[-500:]}",
                hint="Is this Java whole? Try another by JAVA_HOME.",
            )
        shutil.copytree(Path(scratch, "log"), target)


def _train(distribution: Distribution) -> Path:
    """Start and stop a broker once so that Java writes its archive."""
    archive = distribution.home / f"startup-java{distribution.java.major}.archive"
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="ekko-train-") as scratch:
        flags = (f"{distribution.java.archive_training_flag}={archive}",)
        with Broker(Path(scratch), distribution=distribution, jvm_flags=flags, start_timeout_s=120, stop_timeout_s=120):
            pass
    return archive


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock: two set-ups at once would write the same files."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
