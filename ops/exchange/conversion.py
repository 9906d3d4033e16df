"""From the values in a file to rows as a table stores them, the change from its initialiser (pure)."""

from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ekko.ops.exchange.tables import Chunk, Origin
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import Int32s, round_to_nearest

_LISTED = 20


class BadValue(NamedTuple):
    """A value that no row may receive."""

    key: int
    column: int
    value: float


@dataclass
class Findings:
    """What is wrong with a file: how many values, and the first of them."""

    count: int = 0
    first: list[BadValue] = field(default_factory=list)

    def raise_if_any(self, what: str, table: TableDeclaration) -> None:
        """Raises BadInput that lists them."""
        if not self.count:
            return
        bound = 2.0 ** (31 - table.fraction_bits)
        lines = [f"  key {bad.key}, column {bad.column}: {bad.value:g}" for bad in self.first]
        more = [f"  and {self.count - len(lines)} more"] if self.count > len(lines) else []
        listed = "\n".join([*lines, *more])
        raise BadInput(
            f"{what}: {self.count} value(s) are not finite or beyond ±{bound:g}; nothing was published\n{listed}",
            hint="repair or clip them; a wider range needs a table with fewer fraction_bits",
        )


def find_bad(chunk: Chunk, origin: Origin | None, table: TableDeclaration, findings: Findings) -> None:
    """Add to `findings` what of a chunk cannot be a row of `table`."""
    if _is_exact(origin, table):
        return
    values = _floats(chunk, origin)
    steps = np.rint(values.astype(np.float64) * (1 << table.fraction_bits))
    bad = ~((steps >= -(2.0**31)) & (steps < 2.0**31))
    if bad.any():
        findings.count += int(np.count_nonzero(bad))
        for row, column in np.argwhere(bad)[: _LISTED - len(findings.first)]:
            findings.first.append(BadValue(int(chunk.keys[row]), int(column), float(values[row, column])))


def to_rows(chunk: Chunk, origin: Origin | None, table: TableDeclaration) -> Int32s:
    """Rows int32[N, dim] such that initialiser + row is what the file says, to the nearest step.

    An export of ours into a table of the same fraction_bits keeps its bits. Wrap-around addition, as everywhere.

    Raises:
        BadInput: a value is not finite or out of range; see `find_bad`.
    """
    if origin is not None and _is_exact(origin, table):
        if _initializer(origin.table) == _initializer(table):
            return chunk.values.astype(np.int32, copy=False)
        values = chunk.values.astype(np.int32, copy=False) + initial_rows(origin.table, chunk.keys)
    else:
        values = round_to_nearest(_floats(chunk, origin), table.fraction_bits)
    rows: Int32s = values if table.initializer == "zeros" else values - initial_rows(table, chunk.keys)
    return rows


def _is_exact(origin: Origin | None, table: TableDeclaration) -> bool:
    return origin is not None and origin.table.fraction_bits == table.fraction_bits


def _initializer(table: TableDeclaration) -> tuple[str, float, int, int]:
    if table.initializer == "zeros":
        return "zeros", 0.0, 0, 0
    return table.initializer, table.scale, table.seed, table.fraction_bits


def _floats(chunk: Chunk, origin: Origin | None) -> npt.NDArray[np.floating]:
    """The values; those of an export in doubles, which hold every int32 exactly."""
    if origin is None:
        return cast("npt.NDArray[np.floating]", chunk.values)
    served = chunk.values.astype(np.int32, copy=False) + initial_rows(origin.table, chunk.keys)
    scaled: npt.NDArray[np.floating] = served * 2.0**-origin.table.fraction_bits
    return scaled
