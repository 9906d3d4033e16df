"""`ekko region`: list, add and remove regions (`ekko model apply` declares those that begin with the source log)."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer(help="List, add and remove regions; `ekko model apply` declares those that begin from nothing.")


@app.command("list", epilog="Example: ekko region list")
def list_regions(bootstrap: Bootstrap = None, config: Config = None) -> None:
    """List regions, each with its own cluster if it has one."""
    from ekko.ops import model_view
    from ekko.ops.process import central_cluster
    from ekko.ops.settings import load

    typer.echo(model_view.read(central_cluster(load(config, bootstrap=bootstrap))).regions_text(), nl=False)


@app.command(epilog="Example: ekko region add south --from east --folder /backup/south")
def add(
    name: Annotated[str, typer.Argument(help="Name of the new region.")],
    *,
    donor: Annotated[str, typer.Option("--from", metavar="DONOR", help="The region whose rows it begins with.")],
    folder: Annotated[Path, typer.Option(help="Folder for the snapshots and seeds; the same when it is run again.")],
    snapshot: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that `ekko snapshot` has made of a store of DONOR; may be repeated."),
    ] = None,
    region_bootstrap: Annotated[
        str, typer.Option(metavar="HOST:PORT,...", help="The new region's own Kafka cluster; the central one if none.")
    ] = "",
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Make a region from another one's snapshot: it needs no source log but what came since.

    Without --snapshot the donor's running stores take them now. The donor goes on serving and is not changed. Run the
    same command again after any failure: it goes on where it was cut short. Then `ekko restore` the seeds it names.
    """
    from ekko.ops.region_add import Request, run
    from ekko.ops.settings import load

    request = Request(name, donor, region_bootstrap, tuple(snapshot or ()), folder)
    run(load(config, bootstrap=bootstrap), request, typer.echo)


@app.command(epilog="Example: ekko region remove east")
def remove(
    region: Annotated[str, typer.Argument(help="Name of the region.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Remove a region: its declaration and its topics of all models. Stop its fan-outs and stores first.

    Models lose nothing: the source logs stay. The same name may be declared again later; it is another region then.
    """
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load
    from ekko.streams.catalogue.declaring import delete_region

    settings = load(config, bootstrap=bootstrap)
    if not yes:
        typer.confirm(f"Remove region {region} and its topics of all models?", abort=True)
    done = delete_region(central_cluster(settings), region, lambda declared: region_cluster(settings, declared))
    typer.echo("\n".join(done) if done else "nothing to do")
