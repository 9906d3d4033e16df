"""`ekko fanout`: every update of every model, to one serving region."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config, MetricsHost, MetricsPort, Region, RegionBootstrap

app = typer.Typer()


@app.command(epilog="Example: ekko fanout --region east --bootstrap 127.0.0.1:9092 --metrics-port 9101")
def fanout(
    *,
    region: Region,
    bootstrap: Bootstrap = None,
    region_bootstrap: RegionBootstrap = None,
    config: Config = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only this model; may be repeated. All models if left out.")
    ] = None,
    instance: Annotated[
        str | None, typer.Option(help="Name of this process among several for the region; the host's name if left out.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Run the fan-out of a region until Ctrl-C or SIGTERM.

    What matters most goes first, the rest as the region's bandwidth allows (bandwidth_bytes_per_s in the settings).
    Killed at any moment, it goes on where the log says it was. Several with different --instance names share the work
    and take over from each other; a second one of the same name takes everything over and ends the first.
    """
    import time

    from ekko.ops.process import central_cluster, region_cluster, serve_metrics, spare_collections, stop_on_signals
    from ekko.ops.settings import load
    from ekko.streams.catalogue import Catalogue
    from ekko.streams.fanout import FanoutSettings, RegionFanout

    stop = stop_on_signals()
    overridden = {region: {"bootstrap": region_bootstrap}} if region_bootstrap else None
    settings = load(config, bootstrap=bootstrap, region=overridden)
    own, central = settings.of_region(region), central_cluster(settings)
    catalogue = Catalogue(central)
    catalogue.refresh()
    regional = region_cluster(settings, catalogue.region(region))
    catalogue.close()
    chosen = FanoutSettings(
        models=frozenset(model or ()),
        bandwidth_bytes_per_s=own.bandwidth_bytes_per_s,
        bulk_max_age_s=own.bulk_max_age_s,
        express_percentile=own.express_percentile,
        score=own.score,
    )
    serve_metrics(metrics_host, metrics_port)
    spare_collections()
    RegionFanout(central, regional, region, settings=chosen, clock=time.time, instance=instance).run(stop)
