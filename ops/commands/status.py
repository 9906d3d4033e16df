"""`ekko status`: whether everything runs; the exit code says it to programs."""

import time
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko status --bootstrap kafka-1:9092")
def status(
    *,
    bootstrap: Bootstrap = None,
    config: Config = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Judge only models, regions, barriers, states, monitor, fanout or stores. May be repeated.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables.")] = False,
) -> None:
    """Show models, regions and replicas: barrier age, fan-out lag, what is pending, who is ready, what stands still.

    Exit code 1 if something is wrong, with a line on what to do. Everything is read from the log: no process is asked,
    so one that hangs cannot hide it. How the machines are set up is told by `ekko doctor`.
    """
    import json
    from dataclasses import asdict

    from ekko.ops import findings
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load
    from ekko.ops.status import facts, view
    from ekko.ops.status.judge import PARTS, judge
    from ekko.ops.status.signals import SignalTail
    from ekko.schemas.errors import ConfigurationError

    if unknown := set(only or ()) - set(PARTS):
        raise ConfigurationError(f"--only {' '.join(sorted(unknown))}: no such part", hint=f"parts: {', '.join(PARTS)}")
    settings = load(config, bootstrap=bootstrap)
    now_us = int(time.time() * 1e6)  # before reading: on a busy machine what is read first must not look old by that
    central = central_cluster(settings)
    found = facts.read(central, lambda region: region_cluster(settings, region), SignalTail(central))
    judged = [each for each in judge(found, now_us, settings.epoch_interval_s) if not only or each.part in only]
    if as_json:
        typer.echo(json.dumps({**view.as_data(found, now_us), "findings": [asdict(each) for each in judged]}))
    else:
        typer.echo(view.as_text(found, now_us) + "\n".join(findings.as_text(each) for each in judged))
    raise typer.Exit(findings.exit_code(judged))
