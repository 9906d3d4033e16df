"""`ekko expire`: take rows away into which nothing has arrived for long."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from rich.progress import Progress, TaskID, TextColumn

from ekko.ops.exchange.holders import Holder, ask, assign, newest_state
from ekko.ops.exchange.row_source import read_rows
from ekko.ops.process import central_cluster
from ekko.ops.progress import progress_of
from ekko.ops.settings import Settings
from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.epochs import ModelState
from ekko.schemas.errors import BadInput, CommitUncertain, ConnectionFailed, NotReady, TransactionAborted
from ekko.schemas.signals import AuditEntry
from ekko.storage.serving.row_stream import Run
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.manager.barriers import beginning
from ekko.streams.manager.history import read_control, read_states
from ekko.streams.manager.intervention import actor
from ekko.streams.operations.expiry import RowsExpiry, oldest_target, state_of_age
from ekko.streams.operations.rows_writer import Target

Tell = Callable[[str], None]

_TIMEOUT_S = 10.0
_POLL_S = 0.3
_ATTEMPTS = 5
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for.

    Attributes:
        older_than: an age such as "30d". stores: those of the region from which rows are read.
        wait_s: how long to wait for the model state as of which they are read.
    """

    model: str
    table: str
    older_than: str
    stores: Sequence[str]
    wait_s: float
    reason: str
    dry_run: bool


def seconds(age: str) -> float:
    """An age such as "30d", "12h", "90m" or "45s", in seconds; raises BadInput."""
    parts = re.fullmatch(r"(\d{1,9})([smhd])", age)
    if parts is None:
        raise BadInput(f"{age!r} is no age", hint="a whole number and s, m, h or d, as in 30d")
    return int(parts[1]) * _UNITS[parts[2]]


def run(settings: Settings, request: Request, tell: Tell) -> None:
    """Publish the negatives of a table's idle rows.

    Raises:
        BadInput, ConfigurationError: no such age, model or table.
        ConnectionFailed, NotReady, StateUnavailable: the stores cannot tell the rows; see `--wait`.
        Fenced, RolledBack, CommitUncertain: run it again: what has expired stays so.
    """
    age_s = seconds(request.older_than)
    with closing(central_cluster(settings)) as central, closing(SharedCatalogue(central)) as catalogue:
        catalogue.refresh(_TIMEOUT_S)
        model = catalogue.model(request.model)
        barrier = read_control(central, catalogue, model) or beginning(model.incarnation or 0)
        states = read_states(central, catalogue, model)
        job = _Job(request, model.table(request.table), state_of_age(states, int(time.time() * 1e6), age_s), tell)
        idle_since = min(job.idle_since, oldest_target(barrier))
        tell(_plan(job, idle_since, states))
        if not idle_since:
            return
        if request.dry_run:
            job.count(idle_since)
        else:
            job.expire(Target(central, catalogue, model))


def _plan(job: "_Job", idle_since: int, states: dict[int, ModelState]) -> str:
    if not job.idle_since:
        oldest = f"state {min(states)}" if states else "none"
        return f"nothing expires: no model state so old is known (the oldest: {oldest})"
    if not idle_since:
        return "nothing expires: a rollback may still name state 0, the beginning (see `ekko states`)"
    limit = "" if idle_since == job.idle_since else ": a rollback may still name it, so younger rows stay"
    opened = f", opened {time.time() - states[idle_since].written_us / 1e6:.0f} s ago" if idle_since in states else ""
    what = f"rows of table {job.table.name} into which nothing has arrived since model state {idle_since}"
    return f"{what}{opened}{limit}"


@dataclass(frozen=True, slots=True)
class _Job:
    """An expiry asked for; `idle_since` goes by age alone."""

    request: Request
    table: TableDeclaration
    idle_since: int
    tell: Tell

    def count(self, idle_since: int) -> None:
        """Tell how many rows would expire."""
        model, members = ask(self.request.stores, self.request.model)
        holders = assign(model, members)
        state = newest_state(holders)
        with _progress() as progress:
            task = progress.add_task("idle", total=None)
            rows = sum(len(run.keys) for run in self._runs(holders, state, idle_since, progress, task))
        self.tell(f"{rows} rows would expire, as of model state {state}")

    def expire(self, target: Target) -> None:
        """Publish, in as many attempts as it takes."""
        rows = 0
        for attempt in range(1, _ATTEMPTS + 1):
            at_us = int(time.time() * 1e6)
            with closing(RowsExpiry(target, self.table, self.idle_since, at_us)) as expiry, _progress() as progress:
                try:
                    for published in self._publish(expiry, at_us, progress):
                        rows += published
                except (CommitUncertain, TransactionAborted):
                    if attempt == _ATTEMPTS:
                        raise
                    continue
                expiry.check_generation()
                self.tell(f"{expiry.name}: {rows} rows have expired" if rows else "nothing is left to expire")
                return
        raise AssertionError("every attempt ends by a return or raises")

    def _publish(self, expiry: RowsExpiry, at_us: int, progress: Progress) -> Iterator[int]:
        """Publish chunk by chunk; yields the rows of each. The audit entry comes with the last."""
        name = expiry.name
        task = progress.add_task(f"wait for model state {name.state}", total=None)
        holders = self._wait_for(name.state)
        progress.update(task, description="expired")
        rows = 0
        runs = chain(self._runs(holders, name.state, name.idle_since, progress, task), [None])
        held = next(runs)
        for number, following in enumerate(runs, start=1):
            assert held is not None
            rows += len(held.keys)
            entry = self._entry(expiry, at_us, rows) if following is None else None
            yield expiry.publish(number, held.keys, -held.rows, entry)
            held = following

    def _entry(self, expiry: RowsExpiry, at_us: int, rows: int) -> AuditEntry:
        return AuditEntry(
            model=self.request.model,
            action=Purpose.EXPIRE,
            actor=actor(),
            reason=self.request.reason,
            at_us=at_us,
            details={"operation": str(expiry.name), "rows": str(rows)},
        )

    def _runs(
        self, holders: Sequence[Holder], state: int, idle_since: int, progress: Progress, task: TaskID
    ) -> Iterator[Run]:
        for holder in holders:
            for run in read_rows(self.request.model, self.table, holder, state, idle_since=idle_since):
                progress.advance(task, len(run.keys))
                yield run

    def _wait_for(self, state: int) -> list[Holder]:
        """Stores that hold all shards, once they are complete at `state`."""
        deadline = time.monotonic() + self.request.wait_s
        while True:
            try:
                model, members = ask(self.request.stores, self.request.model)
                holders = assign(model, members)
                complete = newest_state(holders)
                trouble = f"they are complete at {complete} only"
            except (ConnectionFailed, NotReady) as error:
                complete, trouble = -1, error.message
            if complete >= state:
                return holders
            if time.monotonic() > deadline:
                raise NotReady(
                    f"the stores cannot tell model state {state}, after {self.request.wait_s:g} s: {trouble}",
                    hint="look at `ekko states` and `ekko status`, then run it again, with a longer --wait",
                )
            time.sleep(_POLL_S)


def _progress() -> Progress:
    return progress_of(TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} rows"))
