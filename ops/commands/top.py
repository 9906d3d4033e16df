"""`ekko top`: a live view of a running cluster."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko top --bootstrap 127.0.0.1:9092")
def top(
    *,
    bootstrap: Bootstrap = None,
    config: Config = None,
    every: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between two frames.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, for scripts.")] = False,
) -> None:
    """Watch models, regions and replicas: update latency a lane, rows/s, lag, what is pending, states, quality.

    Replicas are found in the log and asked over HTTP; one that does not answer is named. What waits at fan-outs, and
    the log loss or AUC of live rows beside the baseline's, is read from the models' signals. Rates are those between
    two frames. Ends with Ctrl-C. Whether something is wrong, and what to do then, is told by `ekko status`.
    """
    import time
    from contextlib import closing

    from rich.console import Console, Group

    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load
    from ekko.ops.status import facts, live
    from ekko.ops.status.sample import Sample, read_sample
    from ekko.ops.status.signals import SignalTail

    settings = load(config, bootstrap=bootstrap)

    def frame(earlier: Sample | None) -> tuple[Sample, Group]:
        found = facts.read(central, lambda region: region_cluster(settings, region), tail)
        sample = read_sample(found)
        return sample, live.render(found, sample, earlier, int(time.time() * 1e6))

    console = Console(width=160) if once else Console()
    with closing(central_cluster(settings)) as central:
        tail = SignalTail(central)
        sample, view = frame(None)
        if once:
            time.sleep(min(every, 1.0))  # a rate needs two samples
            console.print(frame(sample)[1])
            return
        live.watch(console, view, sample, frame, every)
