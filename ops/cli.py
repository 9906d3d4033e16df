"""The command `ekko`: every file of `ekko.ops.commands` is one command.

A command file has `app = typer.Typer()` with one `@app.command()`, and its name is the command's (`dead_letters.py` is
`ekko dead-letters`, and `import_.py` is `ekko import`), or with several, which become sub-commands. It imports what it
needs inside its functions: all files are read to list the commands, and `ekko --help` is to stay fast.
"""

import importlib
import logging
import pkgutil
import sys
from typing import NoReturn

import typer

from ekko.ops import commands
from ekko.schemas.errors import EkkoError


def root() -> None:
    """Ekko on Kafka: fresh parameters for online recommenders in every serving region, and exact rollback."""


def build() -> typer.Typer:
    """Return the whole command line."""
    # Markdown: paragraphs are laid out anew, and [rows, dim] in a help text is not taken for a style and swallowed.
    app = typer.Typer(
        name="ekko",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
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
    # What libraries log on the side is for processes that run for long (`stop_on_signals`); others say it as an error.
    logging.getLogger("ekko").addHandler(logging.NullHandler())
    try:
        build()()
    except EkkoError as error:
        _end(error.message, error.hint)
    except TimeoutError as error:
        _end(str(error), "the brokers are slow or overloaded: run it again; `ekko doctor` looks at them")


def _end(message: str, hint: str) -> NoReturn:
    sys.stderr.write(f"ekko: {message}\n" + (f"  {hint}\n" if hint else ""))
    sys.exit(1)
