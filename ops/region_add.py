"""`ekko region add`: a new region from a donor's snapshot, also when the source log's beginning is long gone.

Everything is checked before the region is declared; from then on every step may be repeated, and the same command
finishes what was cut short: copies that are in the lanes are found there, seeds that are made are left as they are.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ekko.ops.exchange.holders import ask, assign, stores_of
from ekko.ops.process import central_cluster, region_cluster
from ekko.ops.restore import check_identity
from ekko.ops.seeding import ModelSeeding
from ekko.ops.settings import Settings
from ekko.ops.snapshot import from_store
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import CatalogueConflict, ConfigurationError
from ekko.storage.disk.sealed import SEAL, Sealed, find_sealed
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import Cluster

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for.

    Attributes:
        bootstrap: the new region's own cluster; empty for the central one.
        snapshots: folders of the donor's snapshots; empty: its running stores take them now.
        folder: where they and the seeds are kept.
    """

    name: str
    donor: str
    bootstrap: str
    snapshots: Sequence[Path]
    folder: Path


def run(settings: Settings, request: Request, tell: Tell) -> None:
    """Make the region, or go on with it.

    Raises:
        ConfigurationError: the snapshots are not the donor's, or do not hold every shard of every model once.
        CatalogueConflict: the region exists and has another donor.
        GapError: the source log or the donor's lanes do not reach back to the snapshots; nothing was changed.
        ConnectionFailed: a cluster or store does not answer.
    """
    with ExitStack() as opened:
        central = opened.enter_context(closing(central_cluster(settings)))
        catalogue = opened.enter_context(closing(SharedCatalogue(central)))
        catalogue.refresh()
        donor = catalogue.region(request.donor)
        live = _check_name(request, catalogue)
        models = {name: model for name, model in catalogue.models.items() if live is None or live.is_seeded(model)}
        snapshots = _by_model(_snapshots(settings, request, models, tell), models, donor)
        donors = opened.enter_context(closing(region_cluster(settings, donor)))
        seedings = [
            ModelSeeding(central, donors, donor, models[name], catalogue, snapshots=of_model)
            for name, of_model in sorted(snapshots.items())
        ]
        for seeding in seedings:
            seeding.check()
        region = live or _declare(settings, central, request, catalogue, tell)
        regional = opened.enter_context(closing(region_cluster(settings, region)))
        for seeding in seedings:
            seeding.run(regional, region, request.folder, tell)
    _tell_what_next(request, seedings, tell)


def _check_name(request: Request, catalogue: SharedCatalogue) -> RegionDeclaration | None:
    """The region, if an earlier attempt has declared it."""
    live = catalogue.regions.get(request.name)
    if live is not None and (live.donor, live.bootstrap) != (request.donor, request.bootstrap):
        raise CatalogueConflict(
            f"region {live.name} exists: donor {live.donor or 'none'}, cluster {live.bootstrap or 'central'}",
            hint="choose another name, or `ekko region remove` it first",
        )
    return live


def _snapshots(
    settings: Settings, request: Request, models: Mapping[str, ModelDeclaration], tell: Tell
) -> list[Sealed]:
    """Those given, or what an earlier attempt has fetched, or what the donor's stores take now."""
    if request.snapshots:
        return [sealed for folder in request.snapshots for sealed in find_sealed(folder)]
    found: list[Sealed] = []
    for name, model in sorted(models.items()):
        folder = request.folder / "donor" / name
        kept = [sealed for seal in folder.glob(f"*/*/{SEAL}") for sealed in find_sealed(seal.parent)]
        if sum(len(sealed.state.shards) for sealed in kept) < model.shards:
            shutil.rmtree(folder, ignore_errors=True)  # a fetch that was cut short
            kept = []
            for number, holder in enumerate(assign(*ask(stores_of(settings, request.donor), name))):
                kept += from_store(holder.address, [name], folder / str(number), tell)
        found += kept
    return found


def _by_model(
    snapshots: Sequence[Sealed], models: Mapping[str, ModelDeclaration], donor: RegionDeclaration
) -> dict[str, list[Sealed]]:
    """The snapshots of each model, every shard in one of them."""
    found: dict[str, list[Sealed]] = {name: [] for name in models}
    for sealed in snapshots:
        if sealed.state.model in models:
            check_identity(sealed, models[sealed.state.model], donor)
            found[sealed.state.model].append(sealed)
    for name, of_model in found.items():
        held = sorted(shard for sealed in of_model for shard in sealed.state.shards)
        if held != list(range(models[name].shards)):
            raise ConfigurationError(
                f"the snapshots hold shards {held} of model {name}, each of 0 to {models[name].shards - 1} is needed "
                "once; nothing was changed",
                hint=f"`ekko snapshot` stores of region {donor.name} that together hold every shard once",
            )
    return found


def _declare(
    settings: Settings, central: Cluster, request: Request, catalogue: SharedCatalogue, tell: Tell
) -> RegionDeclaration:
    wanted = RegionDeclaration(request.name, request.bootstrap, donor=request.donor)
    for text in declare(central, Declarations((wanted,)), lambda region: region_cluster(settings, region)):
        tell(text)
    catalogue.refresh()
    return catalogue.region(request.name)


def _tell_what_next(request: Request, seedings: Sequence[ModelSeeding], tell: Tell) -> None:
    tell(f"region {request.name} is seeded from {request.donor}. Then, for each replica:")
    for folder in sorted({folder for seeding in seedings for folder in seeding.seeds}):
        tell(f"  ekko restore {folder} --region {request.name} --data DIR")
    tell(f"and `ekko fanout --region {request.name}`, `ekko store --region {request.name} --data DIR`")
