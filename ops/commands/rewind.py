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
    to_group: Annotated[
        bool, typer.Option("--to-group", help="To where somebody has reset the replica's consumer group.")
    ] = False,
    to_store: Annotated[
        bool, typer.Option("--to-store", help="Forget such a reset: the group is set back to where the store stands.")
    ] = False,
    replica: Annotated[str, typer.Option(help="Name of the replica, for its consumer group.")] = "0",
    execute: Annotated[bool, typer.Option("--execute", help="Do it; else only the plan is shown.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Take a store that cannot undo a rollback back to its newest snapshot that can; then it reads its lanes again.

    The store must be stopped. Its folder is moved aside, never deleted. Refused if retention has passed the snapshot.
    After offsets of its consumer group were reset with Kafka's tools, --to-group goes to the newest snapshot at or
    before them, all partitions or none.
    """
    from ekko.ops import rewind_group
    from ekko.ops.rewind import Request, run
    from ekko.ops.settings import load
    from ekko.schemas.errors import ConfigurationError

    if (to is not None) + to_group + to_store > 1:
        raise ConfigurationError("one goal at a time", hint="give one of --to, --to-group, --to-store")
    if to_group or to_store:
        asked = rewind_group.Request(model, region, data, replica, to_store, execute)
        rewind_group.run(load(config, bootstrap=bootstrap), asked, typer.echo)
        return
    run(load(config, bootstrap=bootstrap), Request(model, region, data, to, execute), typer.echo)
