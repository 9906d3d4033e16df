"""From a trainer's float deltas to delta blocks: pure, vectorised, the same for the publisher and for simulation.

One stable sort by key and one by shard put equal keys side by side and each shard's rows in a row; everything after
that works on slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput, OutOfRange
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.limits import MAX_BLOCK_BYTES
from ekko.schemas.quantize import Int32s, stochastic_round

Floats = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]

BATCH_OVERHEAD = 512
"""What Kafka adds to a record in its batch (at most 61 + 36 bytes and the key), and then some."""

_FEW_RUNS, _MANY_STEPS = 16, 32
"""When summing run by run takes over: it costs some microseconds a run, and so does a step over all of them."""

_BLOCK_OVERHEAD = 256
"""Header and fixed fields of an encoded block, without names, position and columns (measured: below 120)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a trainer hands over, checked.

    Attributes:
        keys: uint64[N], may repeat. deltas: floating[N, dim]. created: bool[N] or None for none.
    """

    table: TableDeclaration
    keys: UInt64s = field(repr=False)
    deltas: Floats = field(repr=False)
    created: Flags | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ShardedRows:
    """Quantised rows of one table, no all-zero row among them.

    Attributes:
        keys: uint64[N], grouped by shard, ascending in each, distinct.
        deltas: int32[N, dim]. created: bool[N] or None for none.
        starts: int[shards + 1], where each shard's rows begin.
    """

    table: TableDeclaration
    keys: UInt64s = field(repr=False)
    deltas: Int32s = field(repr=False)
    created: Flags | None = field(repr=False)
    starts: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """What a block may hold: `rows` as the catalogue says, `bytes` as the topic takes them (encoded)."""

    rows: int
    bytes: int = MAX_BLOCK_BYTES


def check_batch(table: TableDeclaration, keys: npt.ArrayLike, deltas: npt.ArrayLike, created: object) -> Batch:
    """Refuse shapes and dtypes that can only be a mistake; values are looked at in `quantise`.

    Args:
        table: its declaration.
        keys: integers [N], not negative.
        deltas: floating point [N, dim].
        created: bool [N], or None.

    Raises:
        BadInput: naming the table, what was given, and what is expected.
    """
    key_array, delta_array = _as_array(table, "keys", keys), _as_array(table, "deltas", deltas)
    if key_array.ndim != 1 or (key_array.size and not np.issubdtype(key_array.dtype, np.integer)):
        raise _misfit(table, "keys", key_array, "one-dimensional integers, uint64[N]")
    expected = f"floating point [{len(key_array)}, {table.dim}], a row a key"
    if delta_array.shape != (len(key_array), table.dim) or not np.issubdtype(delta_array.dtype, np.floating):
        raise _misfit(table, "deltas", delta_array, expected)
    if key_array.dtype.kind == "i" and key_array.size and key_array.min() < 0:
        row = int(np.argmax(key_array < 0))
        raise BadInput(f"table {table.name}: key {key_array[row]} in row {row} is negative", hint="keys are uint64")
    flags = None if created is None else _as_array(table, "created", created)
    if flags is not None and (flags.shape != key_array.shape or flags.dtype != np.bool_):
        raise _misfit(table, "created", flags, f"bool[{len(key_array)}], a flag a key")
    return Batch(table, key_array.astype(np.uint64, copy=False), delta_array, flags)


def check_position(position: object) -> None:
    """Refuse an input position that is not bytes; raises BadInput."""
    if position is not None and not isinstance(position, bytes):
        raise BadInput(
            f"position is {type(position).__name__}, not bytes", hint="encode it, e.g. position=str(offset).encode()"
        )


def _as_array(table: TableDeclaration, what: str, given: object) -> npt.NDArray[Any]:
    try:
        return np.asarray(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadInput(
            f"table {table.name}: {what} are no array: {error}", hint="pass a NumPy array, or rows of equal length"
        ) from error


def _misfit(table: TableDeclaration, what: str, given: npt.NDArray[np.generic], expected: str) -> BadInput:
    shape = ", ".join(map(str, given.shape))
    return BadInput(f"table {table.name}: {what} are {given.dtype}[{shape}]", hint=f"expected: {expected}")


def quantise(batch: Batch, shards: int, *, seed: int, sequence: int) -> ShardedRows:
    """Sum the deltas of equal keys (in float64), quantise them, drop all-zero rows and group the rest by shard.

    Args:
        batch: see `check_batch`.
        shards: of the model.
        seed: of the publisher.
        sequence: a number used once with this seed.

    Raises:
        OutOfRange: NaN, infinity, or a sum beyond the table's range, naming row and key; nothing of the batch counts.
    """
    table = batch.table
    order = np.argsort(batch.keys, kind="stable")
    shard = shard_of(batch.keys[order], shards).astype(np.uint8 if shards <= 256 else np.int32)
    by_shard = np.argsort(shard, kind="stable")  # a radix sort: cheap for small integers
    order = order[by_shard]
    keys, shard = batch.keys[order], shard[by_shard]
    deltas = np.take(batch.deltas, order, axis=0)
    created = None if batch.created is None or not batch.created.any() else batch.created[order]

    is_first = np.ones(len(keys), dtype=np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused just below
        if not is_first.all():
            firsts = np.flatnonzero(is_first)
            deltas = _sum_runs(deltas, firsts)
            created = None if created is None else np.logical_or.reduceat(created, firsts)
            keys, shard = keys[firsts], shard[firsts]
        try:
            rows = stochastic_round(deltas, table.fraction_bits, seed=seed, sequence=sequence)
        except OutOfRange as error:
            raise _name_the_culprit(batch, keys, deltas, error) from error

    is_row = rows.any(axis=1)
    if not is_row.all():
        keys, rows, shard = keys[is_row], rows[is_row], shard[is_row]
        created = None if created is None else created[is_row]
    starts = np.searchsorted(shard, np.arange(shards + 1))
    return ShardedRows(table, keys, rows, created, starts)


def _sum_runs(rows: Floats, firsts: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Sums of the runs of `rows` that begin at `firsts`, each added up from its first row on, as float64[runs, dim].

    Most runs are short and a few long (Zipf keys): the second rows of all runs are added at once, then the third rows
    and so on; the long runs that remain are summed one by one. 2 to 5 times as fast as `np.add.reduceat` for dim 64.
    """
    lengths = np.diff(firsts, append=len(rows))
    sums = np.take(rows, firsts, axis=0).astype(np.float64)
    longer, step = np.flatnonzero(lengths > 1), 1
    while len(longer) > _FEW_RUNS and step < _MANY_STEPS:
        sums[longer] += np.take(rows, firsts[longer] + step, axis=0)
        step += 1
        longer = longer[lengths[longer] > step]
    for run in longer:
        rows[firsts[run] : firsts[run] + lengths[run]].sum(axis=0, dtype=np.float64, out=sums[run])
    return sums


def _name_the_culprit(batch: Batch, keys: UInt64s, sums: Floats, error: OutOfRange) -> OutOfRange:
    """The same error in the trainer's terms: row and key as it handed them over."""
    finite = np.isfinite(batch.deltas).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        bad = int(np.count_nonzero(~finite))
        value = batch.deltas[row][~np.isfinite(batch.deltas[row])][0]
        return OutOfRange(
            f"table {batch.table.name}: {bad} row(s) of deltas are not finite (first: row {row}, "
            f"key {batch.keys[row]}, value {value}); nothing of this batch was published",
            hint="skip or repair the step that made them: one NaN would stay in its row for ever",
        )
    bound = 2.0 ** (31 - batch.table.fraction_bits)
    culprit = int(np.argmax(np.abs(sums).max(axis=1)))
    row = int(np.argmax(batch.keys == keys[culprit]))
    value = sums[culprit][np.argmax(np.abs(sums[culprit]))]
    return OutOfRange(
        f"table {batch.table.name}: the delta of key {keys[culprit]} (first in row {row}) is {value:g}, beyond the "
        f"table's range of ±{bound:g}; nothing of this batch was published",
        hint=error.hint,
    )


def cut(rows: ShardedRows, template: DeltaBlock, limits: BlockLimits) -> Iterator[DeltaBlock]:
    """The blocks that carry `rows`, each within `limits`, the parts of a shard of about equal size.

    Args:
        rows: see `quantise`.
        template: a block without rows: names, provenance and purpose.
        limits: see `BlockLimits`.

    Raises:
        BadInput: not even one row fits the topic's limit.
    """
    for shard in np.flatnonzero(np.diff(rows.starts)):
        start, stop = int(rows.starts[shard]), int(rows.starts[shard + 1])
        parts = -(-(stop - start) // _rows_that_fit(rows.deltas[start:stop], template, limits))
        edges = np.linspace(start, stop, parts + 1).astype(np.intp)
        for low, high in pairwise(edges):
            yield _with_rows(template, int(shard), rows, slice(low, high))


def _with_rows(template: DeltaBlock, shard: int, rows: ShardedRows, part: slice) -> DeltaBlock:
    created = None if rows.created is None or not rows.created[part].any() else rows.created[part]
    return replace(template, shard=shard, keys=rows.keys[part], deltas=rows.deltas[part], created=created)


def _rows_that_fit(deltas: Int32s, template: DeltaBlock, limits: BlockLimits) -> int:
    names = len(template.table.encode()) + len(template.trainer.encode()) + len((template.operation or "").encode())
    fixed = _BLOCK_OVERHEAD + names + len(template.trainer_position or b"")
    row_bytes = 8 + deltas.shape[1] * _width(deltas) + 1
    fitting: int = min(limits.rows, (limits.bytes - fixed) // row_bytes)
    if fitting < 1:
        raise BadInput(
            f"table {template.table}: a row of {row_bytes} bytes and {fixed} bytes of names and position do not fit "
            f"into a block of {limits.bytes} bytes",
            hint="raise max.message.bytes of the model's delta topic, or declare a table of a smaller dim",
        )
    return fitting


def _width(deltas: Int32s) -> int:
    largest = max(int(deltas.max()), ~int(deltas.min()))
    if largest < 1 << 7:
        return 1
    return 2 if largest < 1 << 15 else 4


def wrapped_sum(deltas: Int32s) -> int:
    """The sum of all values modulo 2**64: adds up over blocks in any order, so logs and totals compare exactly."""
    return int(deltas.sum(dtype=np.int64)) % 2**64
