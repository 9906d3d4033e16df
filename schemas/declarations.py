"""What the catalogue holds: models with their tables, regions, and writer schemas."""

import re
from dataclasses import dataclass, field
from typing import Literal

from ekko.schemas.errors import ConfigurationError
from ekko.schemas.limits import (
    MAX_ADMISSION,
    MAX_DIM,
    MAX_ROWS_A_BLOCK,
    MAX_SEND_EVERY_S,
    MAX_SHARDS,
    MAX_TRAINER_LENGTH,
    NAME_PATTERN,
)

Initializer = Literal["zeros", "uniform"]

CHANGEABLE = ("send_every_s", "admission")
"""What of a declared table may change: how its deltas travel, but not what its rows mean."""

IMPORT_PREFIX, EXPIRY_PREFIX = "import/", "expire/"
"""How the identities of these operations begin, which their blocks carry as their trainer; no trainer's name does."""


def check_name(name: str, what: str) -> None:
    """Refuse names that cannot be part of topic and folder names.

    Raises:
        ConfigurationError: `name` does not match `limits.NAME_PATTERN`.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigurationError(
            f"{what} name {name!r} is not allowed",
            hint="use a lower-case letter, then up to 62 lower-case letters, digits, '_' or '-'",
        )


def check_trainer(name: str) -> None:
    """Refuse trainers' names that nobody could type or read in a list, or that are those of operations.

    Raises:
        ConfigurationError: empty, longer than `limits.MAX_TRAINER_LENGTH`, with characters that do not print, or
            beginning like an operation's identity.
    """
    if name.startswith((IMPORT_PREFIX, EXPIRY_PREFIX)):
        raise ConfigurationError(
            f"trainer name {name!r} is not allowed: it is an operation's",
            hint=f"begin it with anything but {IMPORT_PREFIX!r} and {EXPIRY_PREFIX!r}",
        )
    if not 1 <= len(name) <= MAX_TRAINER_LENGTH or not name.isprintable():
        shown = name if len(name) <= MAX_TRAINER_LENGTH else name[:40] + "..."
        raise ConfigurationError(
            f"trainer name {shown!r} is not allowed ({len(name)} characters)",
            hint=f"use 1 to {MAX_TRAINER_LENGTH} printable characters, without line breaks and control characters",
        )


@dataclass(frozen=True, slots=True)
class TableDeclaration:
    """One embedding table or dense tensor: rows of `dim` int32 steps of 2**-fraction_bits.

    Attributes:
        initializer: value of a key before its first delta; `uniform` draws from [-scale, scale) by `seed`.
        send_every_s: dense tensors, whose rows nearly all change all the time: they are not scored, gather into exact
            sums, and go to the regions once in so many seconds, and when an epoch ends. 0: every row for itself.
        admission: touches of a key that a trainer counts before it publishes it: its deltas are dropped up to the one
            before. 1: every key is published from the first.
    """

    name: str
    dim: int
    fraction_bits: int = 24
    initializer: Initializer = "zeros"
    scale: float = 0.0
    seed: int = 0
    send_every_s: float = 0.0
    admission: int = 1

    def __post_init__(self) -> None:
        check_name(self.name, "table")
        if not 1 <= self.dim <= MAX_DIM:
            raise ConfigurationError(f"table {self.name}: dim {self.dim} is not in 1..{MAX_DIM}")
        if not 0 <= self.fraction_bits <= 30:
            raise ConfigurationError(f"table {self.name}: fraction_bits {self.fraction_bits} is not in 0..30")
        if self.initializer not in ("zeros", "uniform"):
            raise ConfigurationError(f"table {self.name}: initializer {self.initializer!r} is unknown")
        if not 0 <= self.scale <= 2.0 ** (30 - self.fraction_bits):
            raise ConfigurationError(f"table {self.name}: scale {self.scale} is negative or beyond half the range")
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"table {self.name}: seed {self.seed} is not in 0..2**63 - 1")
        if not 0 <= self.send_every_s <= MAX_SEND_EVERY_S:
            raise ConfigurationError(
                f"table {self.name}: send_every_s {self.send_every_s} is not in 0..{MAX_SEND_EVERY_S:.0f}"
            )
        if not 1 <= self.admission <= MAX_ADMISSION:
            raise ConfigurationError(f"table {self.name}: admission {self.admission} is not in 1..{MAX_ADMISSION}")


@dataclass(frozen=True, slots=True)
class ModelDeclaration:
    """A model: the unit of rollback.

    Attributes:
        shards: hash slices of the keys = partitions of every topic of the model.
        shard_groups: fan-out writers; shard s belongs to group s mod shard_groups, and a group moves as one.
        max_rows_a_block: blocks with more rows are rejected.
        incarnation: catalogue offset at which the model was created; None only in the record that creates it.
        deleted: the model is gone; a later declaration of the same name is another incarnation.
    """

    name: str
    shards: int = 8
    shard_groups: int = 1
    tables: tuple[TableDeclaration, ...] = ()
    max_rows_a_block: int = MAX_ROWS_A_BLOCK
    incarnation: int | None = None
    deleted: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "model")
        if not 1 <= self.shards <= MAX_SHARDS:
            raise ConfigurationError(f"model {self.name}: shards {self.shards} is not in 1..{MAX_SHARDS}")
        if not 1 <= self.shard_groups <= self.shards:
            raise ConfigurationError(f"model {self.name}: shard_groups {self.shard_groups} is not in 1..shards")
        if len({table.name for table in self.tables}) != len(self.tables):
            raise ConfigurationError(f"model {self.name}: two tables have the same name")

    def table(self, name: str) -> TableDeclaration:
        """The table called `name`; raises ConfigurationError listing those that exist."""
        for table in self.tables:
            if table.name == name:
                return table
        names = ", ".join(table.name for table in self.tables) or "none"
        raise ConfigurationError(f"model {self.name} has no table {name!r}", hint=f"its tables: {names}")


def check_incarnation(model: ModelDeclaration, wanted: int | None) -> None:
    """Refuse a model that was deleted and declared anew to whom knows the earlier one (None: knows none).

    Raises:
        ConfigurationError: `model` is another incarnation than `wanted`.
    """
    if wanted is not None and model.incarnation != wanted:
        raise ConfigurationError(
            f"model {model.name} is incarnation {model.incarnation} here, not {wanted}: it was declared anew",
            hint="ask for its declaration again: its tables may mean something else now",
        )


@dataclass(frozen=True, slots=True)
class RegionDeclaration:
    """The stores near one serving cluster.

    Attributes:
        bootstrap: the region's own Kafka cluster; empty means the central one.
        incarnation: catalogue offset at which the region was created; None only in the record that creates it.
        donor: the region from whose snapshot it was made; empty if it reads the source logs from their beginning.
    """

    name: str
    bootstrap: str = ""
    incarnation: int | None = None
    deleted: bool = False
    donor: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "region")

    def is_seeded(self, model: ModelDeclaration) -> bool:
        """Whether the model came to this region by a seed: it was there before a region that has a donor."""
        assert model.incarnation is not None
        assert self.incarnation is not None
        return bool(self.donor) and model.incarnation < self.incarnation


@dataclass(frozen=True, slots=True)
class SchemaDeclaration:
    """A writer schema: with it, readers of other versions can read records that carry its fingerprint."""

    kind: int
    fingerprint: int
    schema: str = field(repr=False)
