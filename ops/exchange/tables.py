"""A table as it stands in a file: who wrote it, and its rows in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput
from ekko.schemas.hashing import UInt64s

CHUNK_BYTES = 2 * 1024 * 1024
"""Of int32 rows. A chunk is published in one transaction, for which readers of its partitions wait."""


class Chunk(NamedTuple):
    """Keys uint64[N], and values [N, dim]: int32 steps of an export of ours, else floating point."""

    keys: UInt64s
    values: npt.NDArray[np.int32] | npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Origin:
    """What an export of ours says of itself.

    Attributes:
        table: its declaration: fraction_bits and initialiser, without which its int32 rows mean nothing.
        state: the model state as of which it was taken.
        rows, checksum: of the rows as stored.
    """

    model: str
    table: TableDeclaration
    state: int
    rows: int
    checksum: int


_ORIGIN = TypeAdapter(Origin)
ORIGIN_KEY = "ekko"
"""Where the origin stands in a file's metadata."""


def origin_to_text(origin: Origin) -> str:
    """JSON of an origin."""
    return _ORIGIN.dump_json(origin).decode()


def origin_from_text(text: str | bytes, path: Path) -> Origin:
    """The origin in a file's metadata; raises BadInput."""
    try:
        return _ORIGIN.validate_json(text)
    except ValidationError as error:
        raise BadInput(f"{path}: its metadata is none of ours: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True, slots=True)
class Names:
    """Where keys and values stand in a file of others; no keys there: the rows are numbered from 0."""

    keys: str = "keys"
    values: str = "values"


class TableFile(Protocol):
    """An open file; `chunks` may be called again and gives the same."""

    path: Path
    rows: int
    dim: int
    origin: Origin | None

    def chunks(self) -> Iterator[Chunk]:
        """The rows, in chunks of `chunk_rows(dim)` (the last one shorter).

        Raises:
            BadInput: the file is cut short or its keys are no keys.
        """


def chunk_rows(dim: int) -> int:
    """Rows of a chunk: follows from `dim` alone, so that every attempt at an import numbers its chunks alike."""
    return max(1, min(CHUNK_BYTES // (4 * dim), 65_536))


def checked_keys(keys: npt.NDArray[np.generic], path: Path) -> UInt64s:
    """Keys as uint64; raises BadInput for what would silently become other keys."""
    if keys.dtype.kind not in "ui":
        raise BadInput(f"{path}: keys are {keys.dtype}, not whole numbers", hint="keys are 0 to 2**64 - 1")
    if keys.dtype.kind == "i" and len(keys) and keys.min() < 0:
        raise BadInput(f"{path}: key {keys.min()} is negative", hint="keys are 0 to 2**64 - 1")
    return keys.astype(np.uint64, copy=False)


@dataclass
class Distinct:
    """Refuses a key that a file has twice: which of its rows would count? Keeps 8 bytes a row."""

    path: Path
    parts: list[UInt64s] = field(default_factory=list)

    def add(self, keys: UInt64s) -> None:
        """Take the keys of a chunk."""
        self.parts.append(keys.copy())

    def check(self) -> None:
        """Raises BadInput naming the first key that is there twice."""
        keys = np.sort(np.concatenate(self.parts)) if self.parts else np.empty(0, np.uint64)
        twice = keys[1:][keys[1:] == keys[:-1]]
        if len(twice):
            raise BadInput(
                f"{self.path}: {len(twice)} rows have a key that is there already (the smallest: {twice[0]})",
                hint="keep one row a key",
            )
