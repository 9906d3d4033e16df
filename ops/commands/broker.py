"""`ekko broker`: a real Apache Kafka on this machine, in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: ekko broker --data broker --port 9092")
def broker(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder, made if absent, else taken up again; broker in ekko-data (EKKO_DATA) if left out."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port for clients; the folder's last one or a free one if left out."),
    ] = None,
    heap_mb: Annotated[int, typer.Option(min=64, help="Limit of the Java heap, MiB.")] = 256,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME=VALUE",
            help="A broker setting, e.g. listeners=...; {port} and {controller_port} are filled in. May be repeated.",
        ),
    ] = None,
    prepare: Annotated[bool, typer.Option("--prepare", help="Only fetch Kafka and Java if need be, then end.")] = False,
) -> None:
    """Run a Kafka broker of one node, on loopback unless --property says otherwise, until Ctrl-C or SIGTERM.

    The first run fetches Kafka's jars (44 MB) and, where there is no Java 17 or newer, a Java runtime.
    The bootstrap address goes to the first line of output; pid and port stand in DATA/broker.json.
    """
    from ekko.ops.broker.folder import parse_properties
    from ekko.ops.broker.foreground import run
    from ekko.ops.broker.prepare import prepare as prepare_distribution
    from ekko.ops.settings import load

    overrides = parse_properties(properties or ())
    distribution = prepare_distribution(lambda text: typer.echo(f"  {text}", err=True))
    if not prepare:
        folder = data or load().data / "broker"
        run(folder, port=port, heap_mb=heap_mb, properties=overrides, distribution=distribution)
