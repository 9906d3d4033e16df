"""`ekko export`: every row of a model's tables as of one model state, exact."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, TextColumn

from ekko.ops.exchange.files import Format, write_table
from ekko.ops.exchange.holders import Holder, ask, assign, newest_state
from ekko.ops.exchange.row_source import read_rows
from ekko.ops.exchange.spool import Spool
from ekko.ops.exchange.tables import Origin
from ekko.ops.progress import progress_of
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import to_float
from ekko.storage.disk.data_folder import make_folder
from ekko.storage.serving.row_stream import Total

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; `tables` empty: all. `as_of` None: the last state complete at the stores."""

    model: str
    stores: Sequence[str]
    tables: Sequence[str]
    as_of: int | None
    out: Path
    format: Format
    float32: bool

    def path(self, table: str) -> Path:
        """The file of a table."""
        return self.out / f"{table}.{self.format}"


def run(request: Request, tell: Tell) -> list[Path]:
    """Write one file a table into the folder `out`.

    Raises:
        ConfigurationError: the folder cannot be written to.
        ConnectionFailed: no store answers.
        StateUnavailable: no such state there, or a rollback or retraction changed it meanwhile.
        NotReady: no store holds some shard, or no state is complete yet.
    """
    model, members = ask(request.stores, request.model)
    tables = [model.table(name) for name in request.tables] or list(model.tables)
    holders = assign(model, members)
    state = newest_state(holders) if request.as_of is None else request.as_of
    make_folder(request.out, "--out")
    written = []
    columns = TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} rows")
    with progress_of(*columns) as progress:
        for table in tables:
            path = request.path(table.name)
            origin = _export(request, table, holders, state, progress)
            tell(f"{path}: {origin.rows} rows of {table.dim} as of state {state}, checksum {origin.checksum:016x}")
            written.append(path)
    return written


def _export(
    request: Request,
    table: TableDeclaration,
    holders: Sequence[Holder],
    state: int,
    progress: Progress,
) -> Origin:
    task = progress.add_task(f"export {table.name}", total=None)
    total = Total(0, 0)
    with Spool(request.out, table.dim, exact=not request.float32) as spool:
        for holder in holders:
            for run in read_rows(request.model, table, holder, state):
                total = total.plus(table.name, run)
                rows = to_float(run.rows + initial_rows(table, run.keys), table.fraction_bits)
                spool.add(run.keys, rows if request.float32 else run.rows)
                progress.advance(task, len(run.keys))
        origin = Origin(request.model, table, state, total.rows, total.checksum)
        write_table(request.path(table.name), spool, origin)
    return origin
