"""`ekko model`: declare models and regions, list and delete them."""

from pathlib import Path
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer(help="Declare, list and delete models with their tables and regions.")


@app.command(epilog="Example: ekko model apply model.toml --bootstrap 127.0.0.1:9092")
def apply(
    file: Annotated[Path, typer.Argument(help="TOML file with [[regions]], [[models]] and [[models.tables]].")],
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Make the catalogue and the topics be what FILE says.

    Models, tables and regions that are new are added, also while everything runs; what FILE does not name stays as it
    is. A changed dim or shard count is refused. Safe to run again, also after a failure, and by two people at once.
    """
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load
    from ekko.schemas.errors import ConfigurationError
    from ekko.streams.catalogue.declaring import declare
    from ekko.streams.catalogue.file import read_declarations

    declarations = read_declarations(file)
    settings = load(config, bootstrap=bootstrap)
    for region in declarations.regions:
        own = settings.of_region(region.name).bootstrap
        if own and not region.bootstrap:
            raise ConfigurationError(
                f"region {region.name} has a cluster of its own in the settings ({own}), but none in {file}",
                hint=f'add bootstrap = "{own}" to the region in {file}: everybody reads it from the catalogue',
            )
    done = declare(central_cluster(settings), declarations, lambda region: region_cluster(settings, region))
    typer.echo("\n".join(done) if done else "nothing to do")


@app.command(epilog="Example: ekko model delete ctr")
def delete(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Delete a model: its declaration, its topics and so all its parameters, in every region.

    The same name may be declared again later; it is another model then.
    """
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load
    from ekko.streams.catalogue.declaring import delete_model

    settings = load(config, bootstrap=bootstrap)
    if not yes:
        typer.confirm(f"Delete model {model} and all its parameters at {settings.bootstrap}?", abort=True)
    done = delete_model(central_cluster(settings), model, lambda region: region_cluster(settings, region))
    typer.echo("\n".join(done) if done else "nothing to do")


@app.command("list", epilog="Example: ekko model list --json")
def list_models(
    bootstrap: Bootstrap = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, models, then regions.")] = False,
) -> None:
    """List models with their tables, and the regions that serve them."""
    from ekko.ops import model_view
    from ekko.ops.process import central_cluster
    from ekko.ops.settings import load

    overview = model_view.read(central_cluster(load(config, bootstrap=bootstrap)))
    typer.echo(overview.json_lines() if as_json else overview.text(), nl=False)
