"""First step of set-up, run by `make setup` with any Python >= 3.11 and nothing installed.

Makes `.venv`, installs the hashed requirements and this tree (editable), and lays the link tree for type checkers.
What follows (Kafka's jars, the Java archive) is a command of the package, run here last: `ekko broker --prepare`.
"""

import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LINKS = ROOT / ".links" / "ekko"
PACKAGES = ("schemas", "storage", "streams", "ops")
MINIMUM = (3, 11)


class SetupError(Exception):
    """A step of set-up failed; the text says what to do."""


def executable(name: str) -> Path:
    """Return the path of a program inside the virtual environment."""
    return VENV / ("Scripts" if os.name == "nt" else "bin") / name


def step(number: int, text: str) -> None:
    """Show progress."""
    sys.stdout.write(f"[{number}/4] {text}\n")
    sys.stdout.flush()


def run(command: list[str], remedy: str) -> None:
    """Run a command with its output shown; raise SetupError with the remedy when it fails."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise SetupError(f"failed: {' '.join(command)}\n  {remedy}")


def make_venv() -> None:
    """Make the virtual environment unless a working one of the same Python is there."""
    python = executable("python")
    if python.exists():
        version = subprocess.run(
            [python, "-c", "import sys, pip; print(sys.version)"], capture_output=True, check=False, text=True
        )
        if version.stdout.strip() == sys.version:
            return
    venv.create(VENV, with_pip=True, clear=True)


def install() -> None:
    """Install the locked requirements, then this tree without looking at a registry again."""
    pip = [str(executable("python")), "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    run(
        [*pip, "--require-hashes", "--prefer-binary", "-r", "requirements/dev.txt"],
        "Python's package registry could not be reached, or lacks a wheel for this platform. Behind a mirror set "
        "PIP_INDEX_URL, behind a proxy HTTPS_PROXY, then run `make setup` again.",
    )
    run(
        [*pip, "--no-deps", "--no-build-isolation", "-e", "."],
        "Read the lines above; `rm -rf .venv` and `make setup` start afresh.",
    )


def link_tree() -> None:
    """Lay `.links/ekko/<package>`: type checkers can't follow the mapping of folders to import names."""
    LINKS.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        link = LINKS / package
        if not link.is_symlink():
            link.symlink_to(Path("..", "..", package), target_is_directory=True)


def main() -> int:
    """Run all steps; return the exit code."""
    started = time.monotonic()
    if sys.version_info < MINIMUM:
        sys.stderr.write(f"ekko needs Python >= 3.11, this is {sys.version.split()[0]}: make setup PYTHON=python3.12\n")
        return 1
    try:
        step(1, f"virtual environment (.venv, Python {sys.version.split()[0]})")
        make_venv()
        step(2, "Python packages (requirements/dev.txt; about a minute the first time)")
        install()
        step(3, "link tree for type checkers (.links)")
        link_tree()
        step(4, "Apache Kafka and Java (kept for all clones of this user)")
        run(
            [str(executable("ekko")), "broker", "--prepare"],
            "Then run `make setup` again: what is there already is kept.",
        )
    except SetupError as error:
        sys.stderr.write(f"set-up stopped: {error}\n")
        return 1
    (VENV / ".stamp").touch()
    sys.stdout.write(f"ready in {time.monotonic() - started:.0f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
