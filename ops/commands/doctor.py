"""`ekko doctor`: how this machine and the clusters are set up, and the fix for what is wrong."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer()


@app.command(epilog="Example: ekko doctor --bootstrap kafka-1:9092")
def doctor(
    *,
    bootstrap: Bootstrap = None,
    config: Config = None,
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")] = False,
) -> None:
    """Examine the set-up: bootstrap and advertised addresses, brokers, topics, retention, copies, rights, clocks.

    Run it where a process does not work, with the settings of that process. Every line that is not ok is followed by
    what to do. Changes nothing; exit code 1 if there is a problem. Whether everything *runs* is told by `ekko status`.
    """
    from ekko.ops import findings
    from ekko.ops.doctor.examine import examine
    from ekko.ops.settings import load

    found = []
    for finding in examine(load(config, bootstrap=bootstrap)):
        found.append(finding)
        typer.echo(findings.as_json(finding) if json_lines else findings.as_text(finding))
    raise typer.Exit(findings.exit_code(found))
