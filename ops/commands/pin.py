"""`ekko pin`: the state that is kept at hand, and whether readers get its rows in place of the live ones."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer(help="Pin a state, serve it in place of live rows, or let readers have live rows again.")

Model = Annotated[str, typer.Argument(help="Name of the model.")]
State = Annotated[int, typer.Argument(min=0, help="One of `ekko states MODEL`.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]


@app.command("set", epilog="Example: ekko pin set ctr 41 --reason 'baseline of the A/B test'")
def pin(model: Model, state: State, *, reason: Reason = "", bootstrap: Bootstrap = None, config: Config = None) -> None:
    """Keep a state readable at the speed of live rows, and never withdraw it, until another one is pinned.

    Readers get live rows, also where a pinned state was served before.
    """
    from ekko.ops import pinning

    typer.echo(pinning.pin(pinning.Request(model, reason, bootstrap, config), state, serve=False))


@app.command(epilog="Example: ekko pin serve ctr 41 --reason 'the trainer goes bad again and again'")
def serve(
    model: Model, state: State, *, reason: Reason = "", bootstrap: Bootstrap = None, config: Config = None
) -> None:
    """Pin a state and give readers its rows in place of the live ones, in every region alike.

    Trainers go on, and pull live rows. `ekko pin clear` or `ekko pin set` ends it.
    """
    from ekko.ops import pinning

    typer.echo(pinning.pin(pinning.Request(model, reason, bootstrap, config), state, serve=True))


@app.command(epilog="Example: ekko pin clear ctr --reason 'the trainer is mended'")
def clear(model: Model, *, reason: Reason = "", bootstrap: Bootstrap = None, config: Config = None) -> None:
    """Pin nothing any more: readers get live rows, and the state may be withdrawn in time."""
    from ekko.ops import pinning

    typer.echo(pinning.unpin(pinning.Request(model, reason, bootstrap, config)))
