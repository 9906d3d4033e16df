"""`ekko retract`: take back what one trainer has contributed, exactly."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko retract ctr trainer-7 --first 120 --reason 'stale features'")
def retract(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    trainer: Annotated[str, typer.Argument(help="The trainer's name, as its blocks carry it.")],
    *,
    first: Annotated[int, typer.Option(min=0, help="First epoch whose deltas are taken back.")],
    last: Annotated[int | None, typer.Option(min=0, help="Last one; the last closed epoch if left out.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Publish the exact negative of one trainer's deltas; everyone else's learning stays.

    Run it again after any failure: what was taken back already is not taken back twice.
    """
    from ekko.ops.operating import Request
    from ekko.ops.retract import run
    from ekko.ops.settings import load

    request = Request(model, reason, dry_run)
    run(load(config, bootstrap=bootstrap), request, trainer, first=first, last=last, tell=typer.echo)
