"""`ekko trainer`: which trainers a model accepts blocks from."""

import time
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer(help="Block a trainer, or allow it again.")

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Trainer = Annotated[str, typer.Argument(help="The trainer's name, as its blocks carry it.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]


@app.command(epilog="Example: ekko trainer block ctr trainer-7 --reason 'stale features'")
def block(
    model: Model, trainer: Trainer, *, reason: Reason = "", bootstrap: Bootstrap = None, config: Config = None
) -> None:
    """Reject a trainer's blocks from the next barrier on, in every region alike."""
    _write("trainer block", model, trainer, reason, bootstrap, config)


@app.command(epilog="Example: ekko trainer allow ctr trainer-7")
def allow(
    model: Model, trainer: Trainer, *, reason: Reason = "", bootstrap: Bootstrap = None, config: Config = None
) -> None:
    """Accept a trainer's blocks again from the next barrier on."""
    _write("trainer allow", model, trainer, reason, bootstrap, config)


def _write(action: str, model: str, trainer: str, reason: str, bootstrap: Bootstrap, config: Config) -> None:  # noqa: PLR0917
    from ekko.ops.process import central_cluster
    from ekko.ops.settings import load
    from ekko.schemas.declarations import check_trainer
    from ekko.schemas.signals import AuditEntry
    from ekko.streams.catalogue import Catalogue
    from ekko.streams.manager.barriers import allowing, denying
    from ekko.streams.manager.intervention import actor, intervene

    check_trainer(trainer)
    central = central_cluster(load(config, bootstrap=bootstrap))
    catalogue = Catalogue(central)
    catalogue.refresh()
    declaration = catalogue.model(model)
    amend = denying(trainer) if action == "trainer block" else allowing(trainer)
    entry = AuditEntry(model, action, actor(), reason, int(time.time() * 1e6), {"trainer": trainer})
    state = intervene(central, catalogue, declaration, amend, entry)
    typer.echo(f"{action} {trainer}: in force from barrier {state.epoch} of {model} on")
