"""`ekko expire`: take rows away into which nothing has arrived for long."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko expire ctr --table embedding --older-than 30d --region east --dry-run")
def expire(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    table: Annotated[str, typer.Option(help="The table whose rows expire.")],
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Age of a row's last delta: 30d, 12h, 90m, 45s.")],
    region: Annotated[str, typer.Option(help="Where the rows are read; they expire in all regions.")],
    store: Annotated[
        list[str] | None, typer.Option(metavar="HOST:PORT", help="Its stores; Kafka tells if left out.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the model state to read.")] = 180.0,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the rows.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Publish the exact negative of every row into which nothing has arrived for long: it is absent then.

    A row stays while a rollback may still name a model state older than its last delta. A rollback over an expiry
    brings its rows back. Run it again after any failure: it goes on where it was.
    """
    from ekko.ops.exchange.holders import stores_of
    from ekko.ops.expire import Request, run, seconds
    from ekko.ops.settings import load

    settings = load(config, bootstrap=bootstrap)
    seconds(older_than)  # a slip of the hand is told before any store is asked
    stores = store or stores_of(settings, region)
    run(settings, Request(model, table, older_than, stores, wait, reason, dry_run), typer.echo)
