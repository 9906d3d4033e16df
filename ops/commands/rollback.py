"""`ekko rollback`: take a model back to an earlier state, everywhere, exactly."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()

UNACKNOWLEDGED = 3
"""Exit code; 2 is that of a command line that is not understood."""


@app.command(epilog="Example: ekko rollback ctr --to 128 --reason 'labels were flipped'")
def rollback(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    to: Annotated[int | None, typer.Option(min=0, help="State to return to; the last healthy one if left out.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if a region has no replica able to undo so far.")
    ] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for acknowledgements.")] = 60.0,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Void every update since a state, in all regions, and begin a new generation.

    Acknowledgements are shown as they come: `readable` in memory, `durable` on disk. Replicas that are down undo when
    they return. Works with the state manager alive or dead. Exit code 3: a replica has not acknowledged in time, or no
    replica of a region is heard.
    """
    from ekko.ops.rollback import Request, run
    from ekko.ops.settings import load

    settings = load(config, bootstrap=bootstrap)
    if not run(settings, Request(model, to, reason, dry_run, force, timeout), typer.echo):
        raise typer.Exit(UNACKNOWLEDGED)
