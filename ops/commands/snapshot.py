"""`ekko snapshot`: copies of a replica's stores, to restore others from."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example: ekko snapshot --store 127.0.0.1:7070 --to /backup/east-2611")
def snapshot(
    *,
    to: Annotated[Path, typer.Option(help="Folder to write into, one sub-folder a model; made if missing.")],
    store: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A running store, here or elsewhere: it takes one now.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A store's data folder, of this machine.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
) -> None:
    """Copy a replica's rows, journals and positions out, checksummed, for `ekko restore` and `ekko region add`.

    With --store from a store that runs, over HTTP, as of now. With --data from a folder: of a stopped store what it
    flushed last, of one that runs its newest scheduled snapshot. Serving goes on meanwhile. A kill leaves nothing but a
    folder that ends in .partial.
    """
    from ekko.ops.snapshot import from_folder, from_store
    from ekko.schemas.errors import ConfigurationError
    from ekko.storage.disk.data_folder import make_folder

    if (store is None) == (data is None):
        raise ConfigurationError("a snapshot is of one store", hint="give either --store HOST:PORT or --data DIR")
    make_folder(to, "--to")
    if store is not None:
        from_store(store, tuple(model or ()), to, typer.echo)
    elif data is not None:
        from_folder(data, tuple(model or ()), to, typer.echo)
