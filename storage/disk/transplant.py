"""Giving a store's folder another place in other lanes: a region's snapshot becomes the seed of a new one."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ekko.schemas.errors import StoreCorrupt
from ekko.schemas.replicas import ReplicaState
from ekko.storage.disk.disk_trouble import corrupt
from ekko.storage.disk.durable import Batch
from ekko.storage.disk.manifest import decode_manifest, encode_manifest
from ekko.storage.disk.rocks import RocksDurable


def transplant(folder: Path, change: Callable[[ReplicaState], ReplicaState]) -> ReplicaState:
    """Replace the version vector in the store in `folder` by what `change` makes of it; rows and journals stay.

    Raises:
        StoreCorrupt: there is no store in it. StoreUnwritable: no room.
    """
    with closing(RocksDurable(folder)) as durable:
        stored = durable.manifest()
        if stored is None:
            raise _empty(folder)
        manifest = decode_manifest(stored)
        state = change(manifest.state)
        durable.commit(Batch((), encode_manifest(replace(manifest, state=state))))
        return state


def _empty(folder: Path) -> StoreCorrupt:
    return corrupt(folder, "it was never flushed")
