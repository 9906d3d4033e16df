"""`ekko restore`: a replica's folder from a sealed snapshot; its lanes, from there on, do the rest.

Everything is checked before anything is changed: whose snapshot it is, whether retention has passed it, whether it is
whole. What is restored comes to stand by one rename a model.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ekko.ops.copying import shown
from ekko.ops.process import central_cluster, region_cluster
from ekko.ops.settings import Settings
from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import ConfigurationError, GapError
from ekko.storage.disk.data_folder import folder_name, move_aside
from ekko.storage.disk.draft import put_in_place
from ekko.storage.disk.folder_lock import FolderLock
from ekko.storage.disk.sealed import Sealed, copy_in, find_sealed, fresh_partial
from ekko.streams.applier.bounds import lost
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Bounds, Partition

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; `models` empty: all that the snapshot holds. `replace`: move what is there aside."""

    snapshot: Path
    region: str
    data: Path
    models: Sequence[str]
    shards: frozenset[int] | None
    replace: bool


@dataclass(frozen=True, slots=True)
class _Target:
    sealed: Sealed
    model: ModelDeclaration
    folder: Path


def run(settings: Settings, request: Request, tell: Tell) -> None:
    """Check, copy, and say how to start the store.

    Raises:
        ConfigurationError: another model's, region's or shards' snapshot, or a store is there already.
        GapError: retention has passed the snapshot, by so many offsets.
        StoreCorrupt: the snapshot is damaged or incomplete.
        StoreLocked: a store runs in the folder.
    """
    with closing(central_cluster(settings)) as central, closing(Catalogue(central)) as catalogue:
        catalogue.refresh()
        region = catalogue.region(request.region)
        targets = [_target(sealed, catalogue, region, request) for sealed in chosen(request)]
    with closing(region_cluster(settings, region)) as cluster:
        for target in targets:
            lanes = lane_positions(target.sealed, region)
            check_retention(target.sealed, lanes, cluster.bounds(lanes))
    lock = FolderLock(request.data, "ekko restore")
    try:
        for target in targets:
            _refuse_present(target.folder, replace=request.replace)
        _place(targets, tell)
    finally:
        lock.release()
    for target in targets:
        shards = ",".join(map(str, sorted(target.sealed.state.shards)))
        tell(f"{target.model.name}: complete at state {target.sealed.state.complete}, shards {shards}")
    tell(f"start it: ekko store --region {region.name} --data {request.data}{_shards_flag(targets)}")


def chosen(request: Request) -> list[Sealed]:
    """The snapshots of the models asked for; raises ConfigurationError if one is not there."""
    found = find_sealed(request.snapshot)
    held = {sealed.state.model for sealed in found}
    missing = sorted(set(request.models) - held)
    if missing:
        raise ConfigurationError(
            f"{request.snapshot} holds no snapshot of {', '.join(missing)}", hint=f"it holds {', '.join(sorted(held))}"
        )
    return [sealed for sealed in found if not request.models or sealed.state.model in request.models]


def _target(sealed: Sealed, catalogue: Catalogue, region: RegionDeclaration, request: Request) -> _Target:
    model = catalogue.model(sealed.state.model)
    check_identity(sealed, model, region)
    shards = sorted(sealed.state.shards)
    wanted = None if request.shards is None else sorted(request.shards & set(range(model.shards)))
    if wanted is not None and wanted != shards:
        raise ConfigurationError(
            f"snapshot {sealed.path} holds shards {shards} of model {model.name}, not {wanted}; nothing was changed",
            hint="restore a snapshot of a replica with the same --shards",
        )
    return _Target(sealed, model, request.data / folder_name(model, region))


def check_identity(sealed: Sealed, model: ModelDeclaration, region: RegionDeclaration) -> None:
    """Refuse a snapshot of another incarnation of the model or region (ConfigurationError)."""
    state = sealed.state
    if state.incarnation != model.incarnation:
        raise ConfigurationError(
            f"snapshot {sealed.path} is of model {model.name} of incarnation {state.incarnation}, the catalogue has "
            f"{model.incarnation}: it was deleted and declared anew; nothing was changed",
            hint="a deleted model's rows are gone for good; start the store with an empty folder",
        )
    if state.region_incarnation != region.incarnation:
        raise ConfigurationError(
            f"snapshot {sealed.path} is of region {sealed.region} of incarnation {state.region_incarnation}, not of "
            f"{region.name} of incarnation {region.incarnation}; nothing was changed",
            hint=f"a new region is made from another one's snapshot with `ekko region add NAME --from {sealed.region}`",
        )


def lane_positions(sealed: Sealed, region: RegionDeclaration) -> dict[Partition, int]:
    """The next offset to read of every lane partition."""
    state = sealed.state
    return {
        Partition(topics.lane(state.model, region.name, lane), shard): offset
        for shard, position in state.shards.items()
        for lane, offset in ((Lane.EXPRESS, position.express.offset), (Lane.BULK, position.bulk.offset))
    }


def check_retention(sealed: Sealed, positions: Mapping[Partition, int], bounds: Mapping[Partition, Bounds]) -> None:
    """Refuse a snapshot from which the lanes do not go on (GapError; law 9)."""
    gaps = [
        (gap, max(bounds[partition].low - position, position - bounds[partition].end))
        for partition, position in positions.items()
        if (gap := lost(partition, position, bounds[partition])) is not None
    ]
    if gaps:
        raise GapError(
            f"snapshot {sealed.path} of model {sealed.state.model}: {gaps[0][0].message}; "
            f"{sum(count for _, count in gaps)} offsets in {len(gaps)} partitions in all; nothing was changed",
            hint="use a newer snapshot, or one of another replica of the region: `ekko snapshot --store HOST:PORT`",
        )


def _refuse_present(folder: Path, *, replace: bool) -> None:
    if folder.exists() and not replace:
        raise ConfigurationError(
            f"{folder} exists; nothing was changed", hint="--replace moves it aside (nothing is deleted)"
        )


def _place(targets: Sequence[_Target], tell: Tell) -> None:
    """Copy all, then let each take its place."""
    partials = []
    with shown("restore", sum(target.sealed.size for target in targets)) as progress:
        for target in targets:
            partials.append(fresh_partial(target.folder))
            copy_in(target.sealed, partials[-1], progress)
    for target, partial in zip(targets, partials, strict=True):
        (partial / "state").unlink()
        if target.folder.exists():
            tell(f"moved the store aside to {move_aside(target.folder)}")
        put_in_place(partial, target.folder)
        tell(f"restored {target.folder} ({target.sealed.size / 1e6:,.1f} MB)")


def _shards_flag(targets: Sequence[_Target]) -> str:
    """For a replica that owns some shards only."""
    largest = max(targets, key=lambda target: target.model.shards)
    shards = sorted(largest.sealed.state.shards)
    return "" if len(shards) == largest.model.shards else f" --shards {','.join(map(str, shards))}"
