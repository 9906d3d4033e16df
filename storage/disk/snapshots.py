"""Snapshots: a store's last commit as a folder of its own, its large files hard-linked, and back again.

A snapshot holds rows, journals, voids and lane positions as they were flushed together; a store put back from one goes
on from its positions, with every void that was committed since.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ekko.schemas.codec import Codec, encode
from ekko.schemas.errors import FormatError
from ekko.schemas.replicas import ReplicaState
from ekko.storage.store import Store

SNAPSHOTS = "snapshots"
"""Folder of a replica's data in which each store's snapshots stand, under the name of the store's own folder."""

_STATE = "state"
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on disk: when it was taken, seconds since 1970, and the version vector in it."""

    path: Path
    taken_s: int
    state: ReplicaState


class Schedule:
    """Takes a snapshot of one store every so often, and removes the oldest beyond a number.

    Args:
        folder: of this store's snapshots; on the file system of the store, or nothing can be linked.
    """

    def __init__(self, folder: Path, *, every_s: float, keep: int) -> None:
        self._folder, self._every_s, self._keep = folder, every_s, keep
        self._due_s: float | None = None

    def step(self, store: Store, now_s: float) -> Snapshot | None:
        """Take one if it is due, something is flushed, and no flush is under way; from the apply thread."""
        if self._due_s is None:
            self._due_s = now_s + self._every_s
        if now_s < self._due_s or store.flushing or store.flushed is None:
            return None
        self._due_s = now_s + self._every_s
        snapshot = take(store, self._folder, int(now_s))
        for old in read(self._folder)[: -self._keep]:
            shutil.rmtree(old.path)
        return snapshot


def take(store: Store, folder: Path, now_s: int) -> Snapshot:
    """Snapshot what the store has flushed last; a kill leaves no half of one behind under its name."""
    assert store.flushed is not None
    path = folder / str(now_s)
    partial = path.with_suffix(_PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    store.checkpoint(partial)
    (partial / _STATE).write_bytes(encode(store.flushed))
    partial.rename(path)
    return Snapshot(path, now_s, store.flushed)


def read(folder: Path) -> list[Snapshot]:
    """Whole snapshots in a folder, oldest first; what is none is left out."""
    found = (_read_one(path) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted((snapshot for snapshot in found if snapshot is not None), key=lambda one: one.taken_s)


def put_back(snapshot: Snapshot, target: Path) -> None:
    """Make `target`, which must not exist, a store's folder as it was: data linked, what RocksDB writes copied."""
    partial = target.with_suffix(_PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    for source in _files(snapshot.path):
        copy = partial / source.relative_to(snapshot.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".sst":
            os.link(source, copy)
        else:
            shutil.copy2(source, copy)
    partial.rename(target)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name not in (_STATE, "LOCK"))


def _read_one(path: Path) -> Snapshot | None:
    if not path.name.isdigit() or not (path / _STATE).is_file():
        return None
    try:
        state = Codec().decode((path / _STATE).read_bytes())
    except FormatError:
        return None
    return Snapshot(path, int(path.name), state) if isinstance(state, ReplicaState) else None
