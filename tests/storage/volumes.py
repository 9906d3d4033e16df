"""A small file system of a test's own, that fills up and becomes read-only as a real one does."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 96 << 20


class Volume:
    """A tmpfs of 96 MiB, mounted on a folder of that name until `unmount`.

    Raises:
        OSError: these tests may mount nothing; run them as root.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._mounts = 0
        self._mount("-t", "tmpfs", "-o", f"size={SIZE}", "none", path)

    @contextmanager
    def full(self, free: int) -> Iterator[None]:
        """Only `free` bytes are left for a while."""
        ballast = self.path / "ballast"
        room = os.statvfs(self.path)
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free)
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be made or changed for a while, but by who has it open for writing."""
        self._mount("--bind", self.path, self.path)
        self._mount("-o", "remount,bind,ro", self.path, more=False)
        try:
            yield
        finally:
            self._unmount_one()

    def unmount(self) -> None:
        """The end of it."""
        while self._mounts:
            self._unmount_one()

    def _mount(self, *arguments: str | Path, more: bool = True) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr)
        self._mounts += more

    def _unmount_one(self) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)
        self._mounts -= 1
