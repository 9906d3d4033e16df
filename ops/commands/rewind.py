"""`ekko rewind`: put a store back from a snapshot, plan first."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config, Region

app = typer.Typer()


@app.command(epilog="Example: ekko rewind ctr --region east --data /var/lib/ekko --to 128 --execute")
def rewind(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    *,
    region: Region,
    data: Annotated[Path, typer.Option(help="The replica's data folder, as given to `ekko store`.")],
    to: Annotated[int | None, typer.Option(min=0, help="State that was rolled back to; the newest rollback's.")] = None,
    execute: Annotated[bool, typer.Option("--execute", help="Do it; else only the plan is shown.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Take a store that cannot undo a rollback back to its newest snapshot that can; then it reads its lanes again.

    The store must be stopped. Its folder is moved aside, never deleted. Refused if retention has passed the snapshot.
    """
    from ekko.ops.rewind import Request, run
    from ekko.ops.settings import load

    run(load(config, bootstrap=bootstrap), Request(model, region, data, to, execute), typer.echo)
