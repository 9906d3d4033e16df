"""`ekko import`: bring a trained model in, from npz, safetensors or Parquet."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko import ctr model.safetensors --table embedding --values embedding.weight")
def import_(
    model: Annotated[str, typer.Argument(help="Name of the model; its tables are declared already.")],
    files: Annotated[list[Path], typer.Argument(help="Files of one table each; .npz, .safetensors or .parquet.")],
    *,
    table: Annotated[str | None, typer.Option(help="The table; as the file says or is called if left out.")] = None,
    keys: Annotated[str, typer.Option(help="Array or column of keys; rows are numbered from 0 if not there.")] = "keys",
    values: Annotated[str, typer.Option(help="Array or column of values, floating point [rows, dim].")] = "values",
    replace: Annotated[bool, typer.Option("--replace", help="Set rows of a table that is not empty.")] = False,
    region: Annotated[str | None, typer.Option(help="With --replace: where present rows are read.")] = None,
    store: Annotated[list[str] | None, typer.Option(metavar="HOST:PORT", help="With --replace: its stores.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="With --replace: seconds to wait for two model states.")] = 180.0,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look at the files.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Publish the rows of files into tables that are empty, or set them with --replace.

    All files are read before anything is published. Run it again after any failure: it goes on where it was.
    """
    from ekko.ops.exchange.holders import stores_of
    from ekko.ops.exchange.importing import Request, run
    from ekko.ops.exchange.present import Replace
    from ekko.ops.exchange.tables import Names
    from ekko.ops.settings import load
    from ekko.schemas.errors import ConfigurationError

    if replace != (region is not None):
        raise ConfigurationError("--replace and --region belong together", hint="--store is optional beside them")
    settings = load(config, bootstrap=bootstrap)
    present = Replace(region, store or stores_of(settings, region), wait) if region is not None else None
    run(settings, Request(model, files, table, Names(keys, values), reason, present, dry_run), typer.echo)
