"""Runs a Dockerfile's steps in order on this machine, in an empty folder and an empty environment.

What a container engine does by mounting, this does by moving the absolute paths that the file itself names (WORKDIR,
ENV, COPY) below a folder. The base image is emulated by a folder of programs: Python, and a handful of Unix tools.
Between stages files keep whole seconds only, as they do in the layers of an image.
"""

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("sh", "install", "mkdir", "cp", "rm", "ls", "chmod", "cat", "dirname", "uname", "sleep")
NETWORK = re.compile(
    r"PIP_(CERT|INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|.*(CERT|CA_BUNDLE|PROXY|proxy).*"
)
"""Variables that say how this machine reaches a registry; of all others a step sees only the file's own."""


@dataclass
class Image:
    """Where the last stage has been laid, and what its metadata say."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """(keyword, rest) of each instruction; comments dropped, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1].strip()) for line in joined if line.strip()]


class Builder:
    """One build.

    Args:
        context: the folder that COPY reads.
        folder: empty; everything is laid below it.
    """

    def __init__(self, context: Path, folder: Path) -> None:
        self.context, self.folder = context, folder
        self.image = Image(folder / "root")
        self.stages: dict[str, Path] = {}
        self.names: list[str] = []
        self.log: list[str] = []

    def build(self, text: str) -> Image:
        """Run everything; raises AssertionError with a step's output when it fails."""
        steps = {
            "FROM": self._from,
            "ENV": self._env,
            "WORKDIR": self._workdir,
            "COPY": self._copy,
            "RUN": self._run,
            "USER": lambda rest: setattr(self.image, "user", rest),
            "ENTRYPOINT": lambda rest: setattr(self.image, "entrypoint", _words(rest)),
            "CMD": lambda rest: setattr(self.image, "command", _words(rest)),
        }
        for keyword, rest in instructions(text):
            steps[keyword](rest)
        return self.image

    def local(self, path: str) -> Path:
        """Where an absolute path of the image lies, or one relative to its WORKDIR."""
        return self.image.root / os.path.join(self.image.workdir, path).lstrip("/")  # noqa: PTH118 - may be absolute

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a program inside what is built so far."""
        program = shutil.which(command[0], path=self.environment()["PATH"])
        assert program is not None, f"{command[0]} is not in the image"
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.local("."),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Variables of a step: the file's, with paths below our folder, and the way to a registry."""
        own = {name: self._moved(value) for name, value in self.image.environment.items()}
        reach = {name: value for name, value in os.environ.items() if NETWORK.fullmatch(name)}
        return {"HOME": str(self.folder / "home"), **reach, **own, "PATH": own.get("PATH", self._base())}

    def _base(self) -> str:
        return str(self.folder / "base")

    def _moved(self, text: str) -> str:
        """`text` with every absolute path of the image moved below our folder."""
        return re.sub(r"(?<![\w./])/(?=(opt|data|build)\b)", f"{self.image.root}/", text)

    def _from(self, rest: str) -> None:
        words = rest.split()
        assert re.fullmatch(r"python:3\.\d+-slim", words[0]), f"unknown base image {words[0]}"
        if self.names:  # the stage before is finished: away with it, so that only what is copied is there
            before = self.folder / f"stage-{self.names[-1]}"
            self.image.root.rename(before)
            self.stages[self.names[-1]] = before
        self.names.append(words[2] if len(words) == 3 else "final")
        self.image = Image(self.folder / "root")
        self.image.root.mkdir()
        self.image.environment["PATH"] = self._base()
        base = Path(self._base())
        if not base.exists():
            base.mkdir()
            (self.folder / "home").mkdir()
            (base / "python").symlink_to(sys._base_executable)
            for tool in TOOLS:
                (base / tool).symlink_to(str(shutil.which(tool)))

    def _env(self, rest: str) -> None:
        known = dict(self.image.environment)
        for word in shlex.split(rest):
            name, _, value = word.partition("=")
            self.image.environment[name] = string.Template(value).substitute(known)

    def _workdir(self, rest: str) -> None:
        self.image.workdir = os.path.join(self.image.workdir, rest)  # noqa: PTH118 - may be absolute
        self.local(".").mkdir(parents=True, exist_ok=True)

    def _copy(self, rest: str) -> None:
        words = [string.Template(word).substitute(self.image.environment) for word in rest.split()]
        source_root = self.context
        if words[0].startswith("--from="):
            source_root = self.stages[words.pop(0).removeprefix("--from=")]
        *sources, target = words
        into_folder = target.endswith("/") or len(sources) > 1
        for source in sources:
            origin = source_root / source.lstrip("/")
            destination = self.local(target) / (origin.name if into_folder and origin.is_file() else "")
            destination.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_file():
                shutil.copy2(origin, destination)
            else:
                shutil.copytree(
                    origin,
                    destination,
                    symlinks=True,
                    dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__") if source_root == self.context else None,
                )
            _whole_seconds(destination)

    def _run(self, rest: str) -> None:
        done = self.run("sh", "-c", self._moved(rest))
        self.log.append(f"{rest}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, f"RUN {rest}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _words(rest: str) -> list[str]:
    return json.loads(rest)


def _whole_seconds(path: Path) -> None:
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if not each.is_symlink():
            second = int(each.stat().st_mtime)
            os.utime(each, (second, second))
