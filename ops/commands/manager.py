"""`ekko manager`: barriers, model states and verdicts of every model."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config, MetricsHost, MetricsPort

app = typer.Typer()


@app.command(epilog="Example: ekko manager --bootstrap 127.0.0.1:9092 --epoch-interval 30 --metrics-port 9102")
def manager(
    *,
    bootstrap: Bootstrap = None,
    config: Config = None,
    epoch_interval: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds between two model states; 30 if left out.")
    ] = None,
    healthy_after: Annotated[
        float, typer.Option(min=0, help="Seconds that a state must be complete in all regions to count as healthy.")
    ] = 60.0,
    rollbacks_an_hour: Annotated[
        int, typer.Option(min=0, help="Automatic rollbacks that a model may have in an hour; 0 for none.")
    ] = 3,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Run the state manager until Ctrl-C or SIGTERM.

    Run it twice for a standby: a manager that sees no barrier of a model for one and a half epoch intervals takes over.
    A manager that is dead only means that no new states are made.
    """
    from ekko.ops.process import central_cluster, region_cluster, serve_metrics, stop_on_signals
    from ekko.ops.settings import load
    from ekko.streams.manager import ManagerSettings, StateManager

    stop = stop_on_signals()
    settings = load(config, bootstrap=bootstrap, epoch_interval_s=epoch_interval)
    chosen = ManagerSettings(
        epoch_interval_s=settings.epoch_interval_s,
        healthy_after_s=healthy_after,
        rollbacks_an_hour=rollbacks_an_hour,
    )
    serve_metrics(metrics_host, metrics_port)
    central = central_cluster(settings)
    StateManager(central, settings=chosen, connect=lambda region: region_cluster(settings, region)).run(stop)
