"""`ekko restore`: a lost replica back from a snapshot."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config, Region, RegionBootstrap

app = typer.Typer()


@app.command(epilog="Example: ekko restore /backup/east --region east --data /var/lib/ekko-b")
def restore(
    snapshot: Annotated[Path, typer.Argument(help="Folder that `ekko snapshot` or `ekko region add` has made.")],
    *,
    region: Region,
    data: Annotated[Path, typer.Option(help="The replica's data folder, as given to `ekko store`; made if missing.")],
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="0-3,6", help="Refuse a snapshot of other shards than these.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move a store that is there aside; nothing is deleted.")
    ] = False,
    bootstrap: Bootstrap = None,
    region_bootstrap: RegionBootstrap = None,
    config: Config = None,
) -> None:
    """Rebuild a replica from a snapshot of any replica of its region; started, it reads its lanes from there on.

    Every file's checksum is looked at, and the lanes must go on where the snapshot stands. Refused are snapshots of
    another incarnation of the model or region, damaged ones, and those that retention has passed. A kill leaves nothing
    but a folder that ends in .partial; run it again.
    """
    from ekko.ops.commands.store import parse_shards
    from ekko.ops.restore import Request, run
    from ekko.ops.settings import load

    overridden = {region: {"bootstrap": region_bootstrap}} if region_bootstrap else None
    request = Request(snapshot, region, data, tuple(model or ()), parse_shards(shards), replace)
    run(load(config, bootstrap=bootstrap, region=overridden), request, typer.echo)
