"""`ekko store`: one replica of a region's parameters, and its HTTP server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ekko.ops.options import Bootstrap, Config, RegionBootstrap
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.limits import MAX_SHARDS

if TYPE_CHECKING:
    from ekko.ops.settings import Settings
    from ekko.streams.kafka import KafkaCluster

app = typer.Typer(invoke_without_command=True)


def parse_shards(text: str | None) -> frozenset[int] | None:
    """Shards of a text like "0-3,6"; None for all. Raises ConfigurationError."""
    if text is None:
        return None
    try:
        parts = [part.strip().partition("-") for part in text.split(",")]
        ranges = [range(int(first), int(last or first) + 1) for first, _, last in parts]
    except ValueError:
        ranges = []
    if not ranges or not all(0 <= shards.start < shards.stop <= MAX_SHARDS for shards in ranges):
        raise ConfigurationError(
            f"--shards {text!r} names no shards of 0 to {MAX_SHARDS - 1}", hint="write numbers and ranges, e.g. 0-3,6"
        )
    return frozenset(shard for shards in ranges for shard in shards)


def check_replica(name: str) -> str:
    """The name, which becomes part of a folder's; raises ConfigurationError."""
    from ekko.schemas.declarations import check_name

    check_name(f"r{name}", "replica")
    return name


def parse_bytes(text: str) -> int:
    """Bytes of a text like "4GiB" or "500MB". Raises ConfigurationError."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise ConfigurationError(f"--memory {text!r} is no size", hint="write e.g. 4GiB or 500MB") from error


@app.command(epilog="Example: ekko store check /var/lib/ekko")
def check(
    data: Annotated[Path, typer.Argument(help="The --data folder of a store that does not run now.")],
) -> None:
    """Read everything a stopped store has on disk and compare it with the checksums and counts of its last flush."""
    from ekko.ops.store_check import describe
    from ekko.storage.disk.checking import check_folder, find_stores

    for folder in find_stores(data):
        typer.echo(describe(check_folder(folder)))


@app.callback(epilog="Example: ekko store --region east --replica a --shards 0-3,6 --data /var/lib/ekko --port 7070")
def store(
    context: typer.Context,
    *,
    region: Annotated[str | None, typer.Option(help="Name of the region.")] = None,
    replica: Annotated[str, typer.Option(help="Name of this replica, its own within the region.")] = "0",
    shards: Annotated[
        str | None, typer.Option(metavar="0-3,6", help="Shards that it owns of every model; all if left out.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Its own folder; store-REGION-REPLICA in ekko-data (EKKO_DATA) if left out.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 7070,
    advertise: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address told to clients; the one listened on if left out.")
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="4GiB", help="Bound of the rows, index and journals of each model.")
    ] = "4GiB",
    stall_seconds: Annotated[
        float, typer.Option(min=0.1, help="Unhealthy after so long without progress despite lag; ends after 3 times.")
    ] = 20.0,
    bootstrap: Bootstrap = None,
    region_bootstrap: RegionBootstrap = None,
    config: Config = None,
) -> None:
    """Hold a region's parameters and serve them over HTTP; killed at any moment it goes on from its last flush."""
    if context.invoked_subcommand is not None:
        return
    if region is None:
        raise ConfigurationError("--region is missing", hint="name the region whose parameters this store is to hold")
    from ekko.ops.process import spare_collections, stop_on_signals
    from ekko.streams.replica.process import StoreProcess, StoreSettings

    settings = load_settings(config, bootstrap, region, region_bootstrap)
    chosen = StoreSettings(
        region=region,
        replica=check_replica(replica),
        data=data or settings.data / f"store-{region}-{replica}",
        shards=parse_shards(shards),
        host=host,
        port=port,
        advertise=advertise,
        memory_bytes=parse_bytes(memory),
        stall_s=stall_seconds,
        snapshot_every_s=settings.snapshot_every_s,
    )
    process = StoreProcess(cluster_of(settings, region), chosen)
    spare_collections()
    process.run(stop_on_signals())


def load_settings(config: Path | None, bootstrap: str | None, region: str, region_bootstrap: str | None) -> "Settings":
    """Settings, with the region's cluster by its flag."""
    from ekko.ops.settings import load

    overridden = {region: {"bootstrap": region_bootstrap}} if region_bootstrap else None
    return load(config, bootstrap=bootstrap, region=overridden)


def cluster_of(settings: "Settings", region: str) -> "KafkaCluster":
    """The region's cluster: if our settings name it, the central one is not asked at all."""
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.schemas.declarations import RegionDeclaration
    from ekko.streams.catalogue import Catalogue

    declared = RegionDeclaration(region)
    if settings.of_region(region).bootstrap is None:
        catalogue = Catalogue(central_cluster(settings))
        catalogue.refresh()
        declared = catalogue.region(region)
        catalogue.close()
    return region_cluster(settings, declared)
