"""`ekko reinstate`: give a model back what a rollback took."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko reinstate ctr --reason 'the monitor was wrong'")
def reinstate(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    to: Annotated[int | None, typer.Option(min=0, help="State that was rolled back to; the newest rollback's.")] = None,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Publish again, exactly, what a rollback has voided: for false alarms.

    What was learnt since stays, too. Run it again after any failure: nothing comes back twice. Epochs that two
    rollbacks cover come back with neither.
    """
    from ekko.ops.operating import Request
    from ekko.ops.reinstate import run
    from ekko.ops.settings import load

    run(load(config, bootstrap=bootstrap), Request(model, reason, dry_run), to, typer.echo)
