"""The command `ekko`: every file of `ekko.ops.commands` is one command.

A command file has `app = typer.Typer()` with one `@app.command()`, and its name is the command's (`dead_letters.py` is
`ekko dead-letters`, and `import_.py` is `ekko import`), or with several, which become sub-commands. It imports what it
needs inside its functions: all files are read to list the commands, and `ekko --help` is to stay fast.
"""

import importlib
import pkgutil
import sys

import typer

from ekko.ops import commands
from ekko.schemas.errors import EkkoError


def root() -> None:
    """Ekko on Kafka: fresh parameters for online recommenders in every serving region, and exact rollback."""


def build() -> typer.Typer:
    """Return the whole command line."""
    app = typer.Typer(name="ekko", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(root)
    for file in sorted(pkgutil.iter_modules(commands.__path__), key=lambda file: file.name):
        module: typer.Typer = importlib.import_module(f"{commands.__name__}.{file.name}").app
        name = file.name.rstrip("_").replace("_", "-")
        if len(module.registered_commands) == 1 and module.registered_callback is None:
            module.registered_commands[0].name = name
            app.registered_commands += module.registered_commands
        else:
            app.add_typer(module, name=name, no_args_is_help=True)
    return app


def run_command(name: str) -> None:
    """Run one command with this process's arguments, for files that are scripts as well; ends as `main` does."""
    sys.argv[:1] = ["ekko", name]
    main()


def main() -> None:
    """Run the command line.

    An error of ours is printed as one line and a hint, exit code 1; anything else is a bug and keeps its traceback.
    """
    try:
        build()()
    except EkkoError as error:
        sys.stderr.write(f"ekko: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        sys.exit(1)
