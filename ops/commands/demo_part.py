"""`ekko demo-part`: the demo's own parts one by one, where something else than `ekko demo` supervises them."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config
from ekko.schemas.errors import ConfigurationError

app = typer.Typer(help="Run a part of the demo by itself, as docker-compose.yml does.")

Folder = Annotated[Path, typer.Option("--data", help="Folder that the demo's parts share.")]


@app.command(epilog="Example: ekko demo-part setup --data demo --store east=127.0.0.1:7070 --store west=127.0.0.1:7071")
def setup(
    *,
    data: Folder,
    store: Annotated[
        list[str], typer.Option("--store", metavar="REGION=HOST:PORT", help="A region's store; once for each region.")
    ],
    seconds: Annotated[float, typer.Option(min=5, help="How long to train.")] = 600,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Declare the model and its regions, fetch the interactions, and leave a plan for trainer and server.

    May be run again: training then goes on for that long, from where the log says it was.
    """
    from ekko.ops.demo.dataset import default_cache, load_interactions
    from ekko.ops.demo.setup import set_up
    from ekko.ops.doctor.network import parse
    from ekko.ops.settings import load

    stores = dict(text.partition("=")[::2] for text in store)
    if not all(region and address.rpartition(":")[0] and parse(address)[0][1] for region, address in stores.items()):
        raise ConfigurationError(f"--store {' '.join(store)} is not understood", hint="write --store east=HOST:PORT")
    central = load(config, bootstrap=bootstrap).bootstrap
    interactions = load_interactions(default_cache())
    typer.echo(f"data: {interactions.origin}, {len(interactions):,} interactions\n  {interactions.notice}")
    typer.echo("\n".join(set_up(data.absolute(), interactions, stores, seconds, central)))


@app.command(epilog="Example: ekko demo-part trainer --data demo")
def trainer(*, data: Folder) -> None:
    """Train as the plan in the folder says; ends when its time is over."""
    from ekko.ops.demo.trainer import main

    main(data)


@app.command(epilog="Example: ekko demo-part server --data demo")
def server(*, data: Folder) -> None:
    """Rank items for the users of the replay with rows of every region, until Ctrl-C or SIGTERM."""
    from ekko.ops.demo.server import main

    main(data)
