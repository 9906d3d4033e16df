"""`ekko witness`: a replica that goes on applying and serves a model as it was at one state."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config, Region, RegionBootstrap

app = typer.Typer()


@app.command(epilog="Example: ekko witness ctr --state 128 --region east --data /var/lib/ekko-witness --port 7079")
def witness(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    state: Annotated[int, typer.Option(min=0, help="The state that it serves; one of `ekko states MODEL`.")],
    region: Region,
    data: Annotated[Path, typer.Option(help="A data folder of its own, empty or made by `ekko restore`.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 7079,
    memory: Annotated[str, typer.Option(metavar="4GiB", help="Bound of rows, index and journals.")] = "4GiB",
    bootstrap: Bootstrap = None,
    region_bootstrap: RegionBootstrap = None,
    config: Config = None,
) -> None:
    """Serve a model as it was at a state, bit for bit, for comparisons that take their time; live reads go elsewhere.

    It applies all that comes, keeps the state however many are withdrawn after it, and follows retractions and undo. It
    is no member of its region: nobody reads there who was not told its address, and no rollback waits for it.
    """
    from ekko.ops.commands.store import cluster_of, load_settings, parse_bytes
    from ekko.ops.process import stop_on_signals
    from ekko.ops.states_view import require_state
    from ekko.streams.replica.process import StoreProcess, StoreSettings

    settings = load_settings(config, bootstrap, region, region_bootstrap)
    chosen = StoreSettings(
        region=region,
        replica="witness",
        data=data,
        host=host,
        port=port,
        memory_bytes=parse_bytes(memory),
        snapshot_every_s=settings.snapshot_every_s,
        witness=(model, state),
    )
    cluster = cluster_of(settings, region)
    require_state(cluster, model, state)
    StoreProcess(cluster, chosen).run(stop_on_signals())
