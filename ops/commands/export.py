"""`ekko export`: a model's rows as of one model state, exact, as npz, safetensors or Parquet."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko export ctr --store 127.0.0.1:7070 --out backup --format npz")
def export(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder that gets a file a table, TABLE.FORMAT.")],
    file_format: Annotated[str, typer.Option("--format", help="npz, safetensors or parquet (needs pyarrow).")] = "npz",
    store: Annotated[list[str] | None, typer.Option(metavar="HOST:PORT", help="A store; may be repeated.")] = None,
    region: Annotated[str | None, typer.Option(help="Instead of --store: ask Kafka for this region's stores.")] = None,
    as_of: Annotated[int | None, typer.Option(min=0, help="Model state; the last complete one if left out.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Values as served, instead of exact int32 rows.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Write a model's tables to files, without stopping anything.

    Rows that were never changed are not in it: their value is the initialiser's. `ekko import` restores the very bits.
    """
    from ekko.ops.exchange.exporting import Request, run
    from ekko.ops.exchange.files import as_format
    from ekko.ops.exchange.holders import stores_of
    from ekko.ops.settings import load
    from ekko.schemas.errors import ConfigurationError

    if (store is None) == (region is None):
        raise ConfigurationError("give either --store or --region", hint="--store HOST:PORT needs no Kafka")
    known = as_format(file_format)
    stores = store or stores_of(load(config, bootstrap=bootstrap), region or "")
    run(Request(model, stores, table or (), as_of, out, known, float32), typer.echo)
