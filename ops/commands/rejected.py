"""`ekko rejected`: source records that a region's fan-out refused, and why."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config, Region, RegionBootstrap

app = typer.Typer()


@app.command(epilog="Example: ekko rejected ctr --region east --follow")
def rejected(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    region: Region,
    bootstrap: Bootstrap = None,
    region_bootstrap: RegionBootstrap = None,
    config: Config = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what is refused from now on.")] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show refused records: origin (shard:offset), when, reason, trainer, table, size, detail.

    They were never applied. Their bytes stay in the rejected topic for 30 days; of blocks of an old generation only
    this much is kept.
    """
    from ekko.ops.process import central_cluster, region_cluster, stop_on_signals
    from ekko.ops.rejected_view import as_json, as_line
    from ekko.ops.settings import load
    from ekko.streams.catalogue import Catalogue
    from ekko.streams.fanout import RejectedTopic

    overridden = {region: {"bootstrap": region_bootstrap}} if region_bootstrap else None
    settings = load(config, bootstrap=bootstrap, region=overridden)
    catalogue = Catalogue(central_cluster(settings))
    catalogue.refresh()
    topic = RejectedTopic(region_cluster(settings, catalogue.region(region)), catalogue.model(model).name, region)
    catalogue.close()
    show = as_json if json_lines else as_line
    if not follow:
        for rejection in topic.read():
            typer.echo(show(rejection))
        return
    stop = stop_on_signals()
    for rejections in topic.follow():
        for rejection in rejections:
            typer.echo(show(rejection))
        if stop.is_set():
            return
