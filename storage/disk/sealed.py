"""Snapshots on their way: copied out of a data folder to anywhere, sealed by checksums, and checked on their way back.

A sealed snapshot is a folder with the files of a store, its version vector (`state`) and the seal: `seal.json`, which
names every file with its size and checksum, and itself by one. It comes to stand under its name by one rename, so a
copy that was cut short is never taken for a whole one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ekko.schemas.errors import ConfigurationError, FormatTooNew, StoreCorrupt
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.disk_trouble import unwritable
from ekko.storage.disk.draft import PARTIAL, draft_of, put_in_place
from ekko.storage.disk.snapshots import all_files, read_state

SEAL = "seal.json"
FORMAT_VERSION = 1

_AT_ONCE = 1 << 20
_REMEDY = "make another one with `ekko snapshot`; nothing was changed"

Progress = Callable[[int], None]
"""Told of bytes that were copied since the last call."""


@dataclass(frozen=True, slots=True)
class SealedFile:
    """Size and BLAKE2b-128 checksum (hexadecimal) of a file."""

    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed snapshot: whose it is, when it was taken (seconds since 1970), and the files in it by relative path."""

    path: Path
    region: str
    taken_s: int
    state: ReplicaState
    files: Mapping[str, SealedFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def copy_out(source: Path, target: Path, region: str, taken_s: int, progress: Progress) -> Sealed:
    """Copy a snapshot's folder to `target`, replacing nothing, and seal it.

    Raises:
        ConfigurationError: `target` exists.
        StoreUnwritable: no room there, or no right to write.
    """
    if target.exists():
        raise ConfigurationError(f"{target} exists", hint="name another folder, or move that one away")
    partial = fresh_partial(target)
    try:
        for path in all_files(source):
            copy_file(path, partial / path.relative_to(source), progress)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise unwritable(target, error) from error
    return seal(partial, target, region, taken_s)


def fresh_partial(target: Path) -> Path:
    """An empty folder beside `target`, to become it once it is sealed."""
    partial = draft_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise unwritable(target, error) from error
    return partial


def seal(partial: Path, target: Path, region: str, taken_s: int) -> Sealed:
    """Write the seal of what is in `partial`, and make it `target`.

    Raises:
        StoreUnwritable: no room, or `target` has come into being.
    """
    state = read_state(partial)
    assert state is not None, "a snapshot has its version vector"
    files = {
        str(path.relative_to(partial)): SealedFile(path.stat().st_size, digest_of(path)) for path in all_files(partial)
    }
    body = {
        "format": FORMAT_VERSION,
        "model": state.model,
        "incarnation": state.incarnation,
        "region": region,
        "region_incarnation": state.region_incarnation,
        "shards": sorted(state.shards),
        "complete": state.complete,
        "taken_s": taken_s,
        "files": {name: [file.size, file.digest] for name, file in files.items()},
    }
    try:
        (partial / SEAL).write_text(json.dumps({**body, "digest": _digest_of_body(body)}, indent=1) + "\n")
        put_in_place(partial, target)
    except OSError as error:
        raise unwritable(target, error) from error
    return Sealed(target, region, taken_s, state, files)


def find_sealed(folder: Path) -> list[Sealed]:
    """The sealed snapshots in a folder, or the one that it is itself; their files are not looked at yet.

    Raises:
        ConfigurationError: there is none. StoreCorrupt, FormatTooNew: see `read_sealed`.
    """
    places = [folder] if (folder / SEAL).exists() else sorted(path.parent for path in folder.glob(f"*/{SEAL}"))
    whole = [place for place in places if not place.name.endswith(PARTIAL)]
    if not whole:
        cut = ", ".join(sorted(path.name for path in folder.glob(f"*{PARTIAL}")))
        what = f"only what is left of a copy that was cut short ({cut})" if cut else "no snapshot"
        raise ConfigurationError(f"there is {what} in {folder}", hint="make one with `ekko snapshot --to FOLDER`")
    return [read_sealed(place) for place in whole]


def read_sealed(folder: Path) -> Sealed:
    """What the seal says.

    Raises:
        StoreCorrupt: the seal or the version vector is damaged, or it names files elsewhere.
        FormatTooNew: later software made it.
    """
    try:
        body: dict[str, Any] = json.loads((folder / SEAL).read_text())
        stated = body.pop("digest")
        version = body["format"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise StoreCorrupt(f"snapshot {folder}: its seal cannot be read: {error}", hint=_REMEDY) from error
    if version != FORMAT_VERSION:
        raise FormatTooNew(
            f"snapshot {folder} has format {version}, this software reads {FORMAT_VERSION}", hint="upgrade this machine"
        )
    state = read_state(folder)
    if stated != _digest_of_body(body) or state is None:
        what = "its version vector" if state is None else "its seal"
        raise StoreCorrupt(f"snapshot {folder}: {what} is damaged", hint=_REMEDY)
    files = {name: SealedFile(*entry) for name, entry in body["files"].items()}
    outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:  # a seal is no signature: whoever may write there could have files put anywhere
        raise StoreCorrupt(f"snapshot {folder}: its seal names {outside[0]!r}, which is not in it", hint=_REMEDY)
    return Sealed(folder, body["region"], body["taken_s"], state, files)


def copy_in(sealed: Sealed, partial: Path, progress: Progress) -> None:
    """Copy a snapshot's files into the empty folder `partial`, checking every one.

    Raises:
        StoreCorrupt: a file is missing or damaged; `partial` is gone again.
        StoreUnwritable: no room there.
    """
    try:
        _check_whole(sealed)
        for name, file in sealed.files.items():
            _copy_checked(sealed, name, file, partial, progress)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _copy_checked(sealed: Sealed, name: str, file: SealedFile, partial: Path, progress: Progress) -> None:
    try:
        digest = copy_file(sealed.path / name, partial / name, progress)
    except OSError as error:
        raise unwritable(partial, error) from error
    if digest != file.digest:
        raise StoreCorrupt(f"snapshot {sealed.path}: {name} is damaged: its checksum differs", hint=_REMEDY)


def _check_whole(sealed: Sealed) -> None:
    """By sizes alone, which costs nothing, before anything is copied."""
    for name, file in sealed.files.items():
        path = sealed.path / name
        if not path.is_file():
            raise StoreCorrupt(f"snapshot {sealed.path} is incomplete: {name} is missing", hint=_REMEDY)
        if path.stat().st_size != file.size:
            raise StoreCorrupt(
                f"snapshot {sealed.path}: {name} is damaged: {path.stat().st_size} bytes, not {file.size}", hint=_REMEDY
            )


def copy_file(source: Path, target: Path, progress: Progress) -> str:
    """Copy one file, synced to disk; its digest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(digest_size=16)
    with source.open("rb") as reading, target.open("wb") as writing:
        while part := reading.read(_AT_ONCE):
            digest.update(part)
            writing.write(part)
            progress(len(part))
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """BLAKE2b-128 of a file, hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as reading:
        while part := reading.read(_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


def _digest_of_body(body: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()
