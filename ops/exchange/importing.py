"""`ekko import`: look at all of the files first, then publish them chunk by chunk."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ekko.ops.exchange.conversion import Findings, find_bad, to_rows
from ekko.ops.exchange.files import open_table
from ekko.ops.exchange.present import PresentRows, Replace
from ekko.ops.exchange.tables import Distinct, Names, TableFile, chunk_rows
from ekko.ops.process import central_cluster
from ekko.ops.progress import progress_of
from ekko.ops.settings import Settings
from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import IMPORT_PREFIX, ModelDeclaration, TableDeclaration
from ekko.schemas.errors import BadInput, CommitUncertain, Fenced, TransactionAborted
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.manager.intervention import actor
from ekko.streams.operations.imported import RowsImport
from ekko.streams.operations.rows_writer import Target

Tell = Callable[[str], None]

_TIMEOUT_S = 10.0
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; `table` None: as the file says, or is called."""

    model: str
    files: Sequence[Path]
    table: str | None
    names: Names
    reason: str
    replace: Replace | None
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Job:
    file: TableFile
    table: TableDeclaration
    identity: str

    @property
    def chunks(self) -> int:
        return -(-self.file.rows // chunk_rows(self.file.dim))


def run(settings: Settings, request: Request, tell: Tell) -> None:
    """Import the files.

    Raises:
        BadInput: something of some file can be no row; nothing was published.
        ConfigurationError: a table is not declared, of another dim, or not empty.
        GapError, NotReady, Fenced, RolledBack, CommitUncertain: see `RowsImport`; run it again.
    """
    with closing(central_cluster(settings)) as central, closing(SharedCatalogue(central)) as catalogue:
        catalogue.refresh(_TIMEOUT_S)
        model = catalogue.model(request.model)
        with _progress() as progress:
            jobs = [_examine(path, model, request, progress) for path in request.files]
            for job in jobs:
                tell(
                    f"{job.file.path}: {job.file.rows} rows of {job.file.dim} for table {job.table.name}, all in range"
                )
                if request.dry_run:
                    continue
                rows = _import(Target(central, catalogue, model), job, request, progress)
                tell(
                    f"{job.identity}: {rows} rows published" if rows else f"{job.identity}: nothing is left to be done"
                )


def _progress() -> Progress:
    return progress_of(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _examine(path: Path, model: ModelDeclaration, request: Request, progress: Progress) -> _Job:
    """Read a file to its end; nothing is published before all of it is known to be good."""
    file = open_table(path, request.names)
    named = request.table or (file.origin.table.name if file.origin else path.name.split(".")[0])
    table = model.table(named)
    if file.dim != table.dim:
        raise BadInput(f"{path}: rows of {file.dim}, table {table.name} of model {model.name} has {table.dim}")
    findings, distinct, digest = Findings(), Distinct(path), hashlib.blake2b(digest_size=8)
    digest.update(repr((table, file.origin)).encode())
    task = progress.add_task(f"look at {path.name}", total=file.rows)
    for chunk in file.chunks():
        find_bad(chunk, file.origin, table, findings)
        distinct.add(chunk.keys)
        digest.update(chunk.keys.tobytes())
        digest.update(chunk.values.tobytes())
        progress.advance(task, len(chunk.keys))
    findings.raise_if_any(str(path), table)
    distinct.check()
    return _Job(file, table, f"{IMPORT_PREFIX}{table.name}/{digest.hexdigest()}")


def _import(
    target: Target,
    job: _Job,
    request: Request,
    progress: Progress,
) -> int:
    """Rows published, over all attempts."""
    rows = 0
    generation: int | None = None
    for attempt in range(1, _ATTEMPTS + 1):
        at_us = int(time.time() * 1e6)
        entry = AuditEntry(
            model=request.model,
            action=Purpose.IMPORT,
            actor=actor(),
            reason=request.reason,
            at_us=at_us,
            details={"operation": job.identity, "rows": str(job.file.rows)},
        )
        with closing(RowsImport(target, job.table, job.identity, at_us)) as operation:
            generation = operation.barrier.generation if generation is None else generation
            operation.check_generation(generation)
            try:
                for published in _publish(operation, job, request, entry, progress):
                    rows += published
            except (CommitUncertain, TransactionAborted):
                if attempt == _ATTEMPTS:
                    raise
                continue
            except Fenced:  # so it seems, too, when a transaction has timed out: a rollback is the better reason
                operation.check_generation(generation)
                raise
            operation.check_generation(generation)
            return rows
    raise AssertionError("every attempt ends by a return or raises")


def _publish(
    operation: RowsImport, job: _Job, request: Request, entry: AuditEntry, progress: Progress
) -> Iterator[int]:
    """Publish what is left of the file; yields the rows of each chunk."""
    done: frozenset[int] = frozenset()
    with ExitStack() as stack:
        present = None
        if request.replace is None:
            done = operation.chunks_in_log()
        else:
            present = stack.enter_context(
                PresentRows(request.replace, request.model, job.table.name, operation.barrier)
            )
        task = progress.add_task(f"publish {job.table.name}", total=job.file.rows)
        for number, chunk in enumerate(job.file.chunks(), start=1):
            if number not in done:
                rows = to_rows(chunk, job.file.origin, job.table)
                deltas = rows if present is None else rows - present.rows(chunk.keys)
                yield operation.publish(number, chunk.keys, deltas, entry if number == job.chunks else None)
            progress.advance(task, len(chunk.keys))
