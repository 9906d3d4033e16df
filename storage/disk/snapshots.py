"""Snapshots: a store's last commit as a folder of its own, its large files hard-linked, and back again.

A snapshot holds rows, journals, voids and lane positions as they were flushed together; a store put back from one goes
on from its positions, with every void that was committed since.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ekko.schemas.codec import Codec, encode
from ekko.schemas.errors import FormatError, StoreCorrupt, StoreUnwritable
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.disk_trouble import unwritable
from ekko.storage.disk.draft import draft_of, put_in_place
from ekko.storage.disk.manifest import decode_manifest
from ekko.storage.disk.rocks import RocksDurable
from ekko.storage.store import Store

SNAPSHOTS = "snapshots"
"""Folder of a replica's data in which each store's snapshots stand, under the name of the store's own folder."""

_STATE = "state"


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
        return self.take_now(store, now_s)

    def take_now(self, store: Store, now_s: float) -> Snapshot:
        """Take one of what was flushed last, due or not; from the apply thread, while no flush is under way.

        Raises:
            StoreUnwritable: there is no room, or an old one cannot be removed (the new one is taken then).
        """
        self._due_s = now_s + self._every_s
        taken_s = int(now_s)
        while (self._folder / str(taken_s)).exists():  # somebody may be copying it
            taken_s += 1
        snapshot = take(store, self._folder, taken_s)
        self._prune()
        return snapshot

    def _prune(self) -> None:
        failure: StoreUnwritable | None = None
        for old in read(self._folder)[: -self._keep]:
            try:
                shutil.rmtree(old.path)
            except OSError as error:  # somebody has put a link in its place, or is writing there
                failure = unwritable(old.path, error)
        if failure is not None:
            raise failure

    def find(self, taken_s: int) -> Snapshot | None:
        """The snapshot taken then, if it is still there."""
        return next((snapshot for snapshot in read(self._folder) if snapshot.taken_s == taken_s), None)


def take(store: Store, folder: Path, now_s: int) -> Snapshot:
    """Snapshot what the store has flushed last; a kill leaves no half of one behind under its name."""
    assert store.flushed is not None
    return _take(store.checkpoint, store.flushed, folder / str(now_s))


def take_closed(store: Path, folder: Path, now_s: int) -> Snapshot:
    """Snapshot the store in the folder `store`, which nobody has open.

    Raises:
        StoreLocked: somebody has. StoreCorrupt: it was never flushed, or is damaged. StoreUnwritable: no room.
    """
    with closing(RocksDurable(store)) as durable:
        return _take(durable.checkpoint, _flushed(durable, store), folder / str(now_s))


def closed_state(store: Path) -> ReplicaState:
    """The version vector of the store in the folder `store`; raises as `take_closed`."""
    with closing(RocksDurable(store)) as durable:
        return _flushed(durable, store)


def _flushed(durable: RocksDurable, store: Path) -> ReplicaState:
    stored = durable.manifest()
    if stored is None:
        raise StoreCorrupt(f"store {store} was never flushed", hint="there is nothing in it: delete the folder")
    return decode_manifest(stored).state


def _take(checkpoint: Callable[[Path], None], state: ReplicaState, path: Path) -> Snapshot:
    partial = draft_of(path)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    checkpoint(partial)
    try:
        write_state(partial, state)
        put_in_place(partial, path)
    except OSError as error:
        raise unwritable(path, error) from error
    return Snapshot(path, int(path.name), state)


def write_state(folder: Path, state: ReplicaState) -> None:
    """Put the version vector beside the data that it belongs to."""
    (folder / _STATE).write_bytes(encode(state))


def read_state(folder: Path) -> ReplicaState | None:
    """The version vector in a snapshot's folder; None where there is none that can be read."""
    try:
        state = Codec().decode((folder / _STATE).read_bytes())
    except (OSError, FormatError):
        return None
    return state if isinstance(state, ReplicaState) else None


def read(folder: Path) -> list[Snapshot]:
    """Whole snapshots in a folder, oldest first; what is none is left out."""
    found = (_read_one(path) for path in (folder.iterdir() if folder.is_dir() else ()))
    return sorted((snapshot for snapshot in found if snapshot is not None), key=lambda one: one.taken_s)


def put_back(snapshot: Snapshot, target: Path) -> None:
    """Make `target`, which must not exist, a store's folder as it was: data linked, what RocksDB writes copied."""
    partial = draft_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    for source in data_files(snapshot.path):
        copy = partial / source.relative_to(snapshot.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".sst":
            os.link(source, copy)
        else:
            shutil.copy2(source, copy)
    put_in_place(partial, target)


def data_files(folder: Path) -> list[Path]:
    """What a store needs of a snapshot, or of its own folder: the database and the number of commits."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (_STATE, "LOCK"))


def all_files(folder: Path) -> list[Path]:
    """The files of a snapshot: its data and its version vector."""
    return [*data_files(folder), folder / _STATE]


def _read_one(path: Path) -> Snapshot | None:
    state = read_state(path) if path.name.isdigit() else None
    return None if state is None else Snapshot(path, int(path.name), state)
