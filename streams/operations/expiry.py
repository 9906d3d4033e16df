"""Expiring rows: the exact negatives of rows into which nothing has arrived for long.

Rows are read as of a model state after everything that was published before the attempt began, earlier attempts and
other operations included. So an attempt goes on after the last one by itself, for what has expired is absent there; and
what later retractions take back of an expired row is what arrives from that state on (see `expired_rows`).

The identity of an attempt says what it is about: `expire/TABLE/E-S`, rows of TABLE into which nothing has arrived in
epoch E or later, as of model state S.
"""

from collections.abc import Mapping
from typing import NamedTuple

from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import EXPIRY_PREFIX, TableDeclaration
from ekko.schemas.epochs import Barrier, ModelState
from ekko.streams.operations.rows_writer import RowsWriter, Target


class ExpiryName(NamedTuple):
    """What an attempt's identity says.

    Attributes:
        idle_since: nothing had arrived in this epoch or later. state: as of which the rows were read.
    """

    table: str
    idle_since: int
    state: int

    def __str__(self) -> str:
        return f"{EXPIRY_PREFIX}{self.table}/{self.idle_since}-{self.state}"


def expiry_name(trainer: str) -> ExpiryName | None:
    """What the trainer of a block says, if it is an expiry's identity."""
    if not trainer.startswith(EXPIRY_PREFIX):
        return None
    table, _, epochs = trainer.removeprefix(EXPIRY_PREFIX).partition("/")
    idle_since, _, state = epochs.partition("-")
    return ExpiryName(table, int(idle_since), int(state)) if idle_since.isdigit() and state.isdigit() else None


def oldest_target(barrier: Barrier) -> int:
    """The oldest model state that a rollback may name."""
    state = 0
    while any(state in run for run in barrier.withdrawn):
        state = next(run.last for run in barrier.withdrawn if state in run) + 1
    return state


def state_of_age(states: Mapping[int, ModelState], now_us: int, age_s: float) -> int:
    """The newest known model state that is at least so old; 0, the beginning, if none is known."""
    return max((epoch for epoch, state in states.items() if now_us - state.written_us >= age_s * 1e6), default=0)


class RowsExpiry(RowsWriter):
    """One attempt at expiring rows of a table.

    Args:
        idle_since: epoch since which nothing may have arrived; never later than the oldest state a rollback may name.
        at_us: when, microseconds since 1970.

    Attributes:
        name: what it is about. The rows are to be read as of `name.state`, which is not the next: the next barrier may
            be committed and not yet be readable.
    """

    def __init__(self, target: Target, table: TableDeclaration, idle_since: int, at_us: int) -> None:
        super().__init__(target, table, Purpose.EXPIRE, at_us)
        idle_since = min(idle_since, oldest_target(self.barrier))
        self.name = ExpiryName(table.name, idle_since, self.barrier.epoch + 2)
        self.identity = str(self.name)
