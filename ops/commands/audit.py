"""`ekko audit`: who did what to a model, when and why."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko audit ctr --last 10")
def audit(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    last: Annotated[int, typer.Option(min=1, help="How many of the newest entries to show.")] = 50,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Show a model's audit trail, oldest first: when, what, by whom, its details, and why.

    What operators and the state manager did, and `undone`: how many rows each replica took back in a rollback.
    """
    from ekko.ops.audit_view import as_json, as_line
    from ekko.ops.process import central_cluster
    from ekko.ops.settings import load
    from ekko.streams.catalogue import Catalogue
    from ekko.streams.manager.history import read_audit

    central = central_cluster(load(config, bootstrap=bootstrap))
    catalogue = Catalogue(central)
    catalogue.refresh()
    show = as_json if json_lines else as_line
    for entry in read_audit(central, catalogue.codec, catalogue.model(model))[-last:]:
        typer.echo(show(entry))
    catalogue.close()
