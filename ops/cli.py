"""The command `ekko`."""

import typer

app = typer.Typer(name="ekko", help="Ekko on Kafka.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """Ekko on Kafka."""


def main() -> None:
    """Run the command line."""
    app()
