"""Progress on stderr while a command works; where that is no terminal, nothing."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def progress_of(*columns: ProgressColumn) -> Progress:
    """A context manager that shows these columns for each of its tasks, and leaves nothing behind."""
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
