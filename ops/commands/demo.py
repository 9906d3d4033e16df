"""`ekko demo`: a recommender that trains online while two regions serve its parameters."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Columns = Annotated[
    str | None,
    typer.Option(help="user=COLUMN,item=COLUMN,time=COLUMN,label=COLUMN[>=LIKED]; numbers if FILE has no header."),
]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of the run, cleared at its start and kept; demo in ekko-data (EKKO_DATA) if left out."),
]


@app.command(epilog="Example: ekko demo --seconds 60 --headless")
def demo(
    *,
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="Seconds of training; set-up and check on top.")] = 60,
    headless: Annotated[
        bool, typer.Option("--headless", help="No live table: plain lines, the last one a JSON object.")
    ] = False,
    poison: Annotated[
        bool, typer.Option("--poison", help="The trainer goes bad in mid-run; watch the model heal by itself.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Interactions of your own: delimited text. With --columns.")
    ] = None,
    columns: Columns = None,
    folder: Folder = None,
) -> None:
    """Train a factorisation machine online and watch two regions serve it milliseconds later.

    Starts a broker, state manager, monitor, two fan-outs, two stores, a trainer and a serving loop, and starts again
    whichever of them you kill. Every interaction is scored with rows read from each region before it is learnt, beside
    the same score from rows that are refreshed only every 20 s. At the end both regions are compared, bit for bit, with
    the sum of what stands in the source log; exit code 0 means that they are equal, and 1 that something is wrong.

    With --poison the trainer takes likes for dislikes from the middle of the run on: the monitor finds out from what
    serving reports, the state manager rolls the model back, and the trainer goes on from clean rows; exit code 1, too,
    if it is not rolled back or predicts no better afterwards.
    """
    from rich.console import Console

    from ekko.ops.broker.prepare import prepare
    from ekko.ops.demo.dataset import default_cache, interactions_of
    from ekko.ops.demo.report import conclusion, description
    from ekko.ops.demo.run import run
    from ekko.ops.demo.view import Lines, LiveTable
    from ekko.ops.settings import load

    # SIGTERM ends the demo as an exception does: its processes are stopped in good order.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    where = folder or load().data / "demo"
    console = Console(highlight=False, soft_wrap=True)
    interactions = interactions_of(data, columns, default_cache())
    prepare(lambda text: console.print(f"  {text}"))
    console.print(description(interactions))
    with Lines(console) if headless else LiveTable(console) as view:
        summary = run(where, interactions, seconds, console.print, view.watch, poison=poison)
    console.print(conclusion(summary))
    typer.echo(summary.model_dump_json())
    raise typer.Exit(0 if summary.sound else 1)
