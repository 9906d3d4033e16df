"""`ekko states`: the states to which a model can go back."""

import time
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko states ctr --last 20")
def states(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    bootstrap: Bootstrap = None,
    config: Config = None,
    last: Annotated[
        int, typer.Option(min=1, help="How many of the newest states to show; the pinned one always is.")
    ] = 20,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """List a model's states: verdict, age, source offsets, and which regions are complete at them.

    A region is complete at a state once every shard is, at some replica: `readable` in memory, `durable` on disk.
    """
    from ekko.ops import states_view
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load

    settings = load(config, bootstrap=bootstrap)
    overview = states_view.read(central_cluster(settings), model, lambda region: region_cluster(settings, region))
    typer.echo(
        overview.json_lines(last) if json_lines else overview.table(last, now_us=int(time.time() * 1e6)), nl=False
    )
