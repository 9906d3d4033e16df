"""What a store's HTTP server serves: the small protocol between it and the process that holds the rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import Member, ReplicaState
from ekko.schemas.signals import Signal

MAX_LOOKUP_KEYS = 65_536
"""Bounds what one request can ask of the server's memory and time; clients split larger lookups."""

MAX_SIGNAL_BYTES = 65_536
"""A signal is a few numbers; anything longer is a mistake."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """Rows as they are stored, without the initialiser.

    Attributes:
        rows: int32[N, dim], zeros where a key is absent.
        found: bool[N].
        state: the version vector that these rows contain at least.
    """

    rows: Int32s = field(repr=False)
    found: npt.NDArray[np.bool_] = field(repr=False)
    state: ReplicaState


@dataclass(frozen=True, slots=True)
class Checksum:
    """Checksum of a table's rows at one replica, and the exact version vector it belongs to."""

    checksum: int
    rows: int
    state: ReplicaState


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Update latency in milliseconds of `count` blocks, each quantile within 1 %."""

    count: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class UpdateLatency:
    """Publish call -> row readable here, one observation a lane block (its oldest delta).

    `recovery` holds what was read to catch up after a start: some of it was readable before the process ended.
    """

    model: str
    express: Percentiles
    bulk: Percentiles
    all: Percentiles
    recovery: Percentiles


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the process does its work.

    Attributes:
        healthy: False once a watchdog or an error says otherwise.
        ready: every model known at the start was read to the ends seen then.
        problems: one sentence each; also what is only strange, such as a model of which nothing is held here.
        halted: "model/shard" -> why it stands still.
        waiting: models that are not ready yet.
    """

    healthy: bool
    ready: bool
    problems: tuple[str, ...] = ()
    halted: dict[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TakenSnapshot:
    """A snapshot that a replica has taken of a model: what its store's folder is called, and its files with sizes.

    Attributes:
        taken_s: seconds since 1970; names the snapshot. complete: the last state at which it is complete.
    """

    name: str
    region: str
    taken_s: int
    complete: int
    files: dict[str, int]


class Served(Protocol):
    """One replica's models. Every method may be called from any thread."""

    def models(self) -> list[ModelDeclaration]:
        """Declarations of the models held here."""

    def model(self, name: str) -> ModelDeclaration:
        """The declaration of a model; raises ConfigurationError that lists those that exist."""

    def lookup(
        self, model: str, table: str, keys: UInt64s, as_of: int | None = None, generation: int | None = None
    ) -> Lookup:
        """Rows of `keys` (uint64[N]), now or as of the start of epoch `as_of`; never waits for applies.

        Now means the live rows, or those of the pinned state where that is served in their place. With `generation`
        they are the live ones in any case, with so many rollbacks undone: what trainers ask for.

        Raises:
            ConfigurationError: no such model or table.
            NotReady: still catching up after the start, or `generation` rollbacks are not undone yet.
            NotOwned: a key belongs to a shard that this replica does not hold.
            StateUnavailable: not complete at `as_of` yet, or `as_of` can no longer be told.
        """

    def checksum(self, model: str, table: str, as_of: int | None = None) -> Checksum:
        """Checksum between two applies; may take long, never longer than a stated time-out.

        Raises:
            NotReady: the apply loop did not answer in time. Others as `lookup`.
        """

    def rows(
        self, model: str, table: str, as_of: int, shards: tuple[int, ...] | None, idle_since: int | None = None
    ) -> Iterator[bytes]:
        """All rows of `shards` (None: those held here) at the start of epoch `as_of`, as frames of `row_stream`.

        With `idle_since` only those into which nothing has arrived in that epoch or later.

        Raises:
            As `lookup`, before the first frame; later errors are frames.
        """

    def take_snapshot(self, model: str) -> TakenSnapshot:
        """Make everything applied durable, and a snapshot of it; it is kept until newer ones replace it.

        Raises:
            ConfigurationError: no such model. NotReady: the apply loop did not answer in time.
            StoreUnwritable: no room.
        """

    def snapshot_file(self, model: str, taken_s: int, name: str) -> Path:
        """Where a file of a snapshot stands; raises ConfigurationError if there is none."""

    def latency(self, model: str) -> UpdateLatency:
        """Update latency since the process started."""

    def members(self) -> list[Member]:
        """The region's replicas that were heard lately, this one included."""

    def relay(self, signal: Signal) -> None:
        """Pass a signal on to the model's topic; raises QueueFull when too many wait already."""

    def health(self) -> Health:
        """How the process is."""
