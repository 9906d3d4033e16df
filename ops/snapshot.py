"""`ekko snapshot`: sealed snapshots of a replica's models in any folder, from a store that runs or is stopped."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import urllib3
from pydantic import ValidationError

from ekko.ops.copying import shown
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, StoreLocked
from ekko.storage.client.connections import Connections
from ekko.storage.disk.disk_trouble import unwritable
from ekko.storage.disk.folder_lock import FolderLock
from ekko.storage.disk.rocks import DATABASE
from ekko.storage.disk.sealed import Progress, Sealed, copy_out, fresh_partial, seal
from ekko.storage.disk.snapshots import SNAPSHOTS, Snapshot, read, take_closed
from ekko.storage.serving import wire
from ekko.storage.serving.served import TakenSnapshot
from ekko.storage.serving.wire import decode_error

Tell = Callable[[str], None]

_TIMEOUT_S = 70.0
"""A store flushes everything that is dirty first."""

_AT_ONCE = 1 << 20


def from_folder(data: Path, models: Sequence[str], to: Path, tell: Tell) -> list[Sealed]:
    """Snapshots of the stores in a replica's data folder; `models` empty: of all.

    Of a stopped store what it flushed last, of one that runs its newest scheduled snapshot.

    Raises:
        ConfigurationError: no such store, or what is to be written exists already.
        StoreCorrupt, StoreUnwritable: as reading and writing do.
    """
    stores = [folder for folder in _stores(data) if not models or folder.name.partition("@")[0] in models]
    missing = sorted(set(models) - {folder.name.partition("@")[0] for folder in stores})
    if missing or not stores:
        raise ConfigurationError(
            f"{data} holds no store of {', '.join(missing) or 'any model'}",
            hint="give the --data folder of an `ekko store`",
        )
    sealed = []
    for store in stores:
        snapshot = _newest(data, store, tell)
        region = store.name.rpartition("@")[0].rpartition(".")[2]
        size = sum(path.stat().st_size for path in snapshot.path.rglob("*") if path.is_file())
        with shown(f"snapshot {store.name}", size) as progress:
            sealed.append(copy_out(snapshot.path, to / store.name, region, snapshot.taken_s, progress))
        _tell(sealed[-1], tell)
    return sealed


def from_store(address: str, models: Sequence[str], to: Path, tell: Tell) -> list[Sealed]:
    """Snapshots that the running store at `address` takes now; `models` empty: of all that it holds.

    Raises:
        ConnectionFailed: it does not answer, or was cut off.
        ConfigurationError: it has no such model, or what is to be written exists already.
    """
    with closing(Connections()) as connections:
        try:
            held = wire.MODELS_JSON.validate_json(_request(connections, address, "GET", "/v1/models"))
            sealed = []
            for name in models or [model.name for model in held]:
                path = f"/v1/models/{name}/snapshots"
                taken = wire.SNAPSHOT_JSON.validate_json(_request(connections, address, "POST", path))
                sealed.append(_fetch(f"http://{address}{path}", taken, to / taken.name))
                _tell(sealed[-1], tell)
        except ValidationError as error:
            raise ConnectionFailed(f"{address} is no store of ours: {error.errors()[0]['msg']}") from error
    return sealed


def _stores(data: Path) -> list[Path]:
    """Stores directly in a data folder: not its snapshots, nor what was moved aside."""
    return sorted(
        path.parent
        for path in data.glob(f"*/{DATABASE}")
        if path.is_dir() and path.parent.name.count("@") == 2 and not path.parent.name.startswith("replaced-")
    )


def _newest(data: Path, store: Path, tell: Tell) -> Snapshot:
    try:
        lock = FolderLock(data, "ekko snapshot")
    except StoreLocked as error:
        scheduled = read(data / SNAPSHOTS / store.name)
        if not scheduled:
            raise ConfigurationError(
                f"{error.message}, and no scheduled snapshot of {store.name} is there yet",
                hint="have it take one now: `ekko snapshot --store HOST:PORT --to FOLDER`",
            ) from error
        tell(f"{store.name}: the store runs; its newest snapshot is {time.time() - scheduled[-1].taken_s:.0f} s old")
        return scheduled[-1]
    try:
        return take_closed(store, data / SNAPSHOTS / store.name, int(time.time()))
    finally:
        lock.release()


def _request(connections: Connections, address: str, method: str, path: str) -> bytes:
    return connections.request(address, method, path, b"", _TIMEOUT_S)


def _fetch(url: str, taken: TakenSnapshot, target: Path) -> Sealed:
    if target.exists():
        raise ConfigurationError(f"{target} exists", hint="name another folder, or move that one away")
    partial = fresh_partial(target)
    timeout = urllib3.Timeout(connect=2.0, read=_TIMEOUT_S)
    try:
        with (
            urllib3.PoolManager(retries=False, timeout=timeout) as pool,
            shown(f"snapshot {taken.name}", sum(taken.files.values())) as progress,
        ):
            for name, size in taken.files.items():
                _fetch_file(pool, f"{url}/{taken.taken_s}/{name}", partial / name, size, progress)
        return seal(partial, target, taken.region, taken.taken_s)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _fetch_file(pool: urllib3.PoolManager, url: str, path: Path, size: int, progress: Progress) -> None:
    try:
        response = pool.request("GET", url, preload_content=False)
        if response.status >= 300:
            raise decode_error(response.read(), f"{url} answered {response.status}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for part in response.stream(_AT_ONCE):
                file.write(part)
                progress(len(part))
    except urllib3.exceptions.HTTPError as error:
        raise ConnectionFailed(f"{url}: {error}", hint="check that `ekko store` runs there, and try again") from error
    except OSError as error:
        raise unwritable(path, error) from error
    if path.stat().st_size != size:
        raise ConnectionFailed(f"{url}: {path.stat().st_size} of {size} bytes came", hint="try again")


def _tell(sealed: Sealed, tell: Tell) -> None:
    state = sealed.state
    tell(
        f"{sealed.path}: {sealed.size / 1e6:,.1f} MB, complete at state {state.complete}, "
        f"shards {','.join(map(str, sorted(state.shards)))}"
    )
