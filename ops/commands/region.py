"""`ekko region`: list and delete regions (`ekko model apply` declares them)."""

from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config

app = typer.Typer(help="List and delete regions; `ekko model apply` declares them.")


@app.command("list", epilog="Example: ekko region list")
def list_regions(bootstrap: Bootstrap = None, config: Config = None) -> None:
    """List regions, each with its own cluster if it has one."""
    from ekko.ops import model_view
    from ekko.ops.process import central_cluster
    from ekko.ops.settings import load

    typer.echo(model_view.read(central_cluster(load(config, bootstrap=bootstrap))).regions_text(), nl=False)


@app.command(epilog="Example: ekko region delete east")
def delete(
    region: Annotated[str, typer.Argument(help="Name of the region.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Delete a region: its declaration and its topics of all models. Stop its fan-outs and stores first.

    Models lose nothing: the source logs stay. The same name may be declared again later; it is another region then.
    """
    from ekko.ops.process import central_cluster, region_cluster
    from ekko.ops.settings import load
    from ekko.streams.catalogue.declaring import delete_region

    settings = load(config, bootstrap=bootstrap)
    if not yes:
        typer.confirm(f"Delete region {region} and its topics of all models?", abort=True)
    done = delete_region(central_cluster(settings), region, lambda declared: region_cluster(settings, declared))
    typer.echo("\n".join(done) if done else "nothing to do")
