"""How the copying of large files is shown."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

from ekko.ops.progress import progress_of


@contextmanager
def shown(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr for `total` bytes (None: not known); yields what is called with bytes done."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with progress_of(*columns) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
