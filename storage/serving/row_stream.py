"""Rows of a table as one streamed reply: what `ekko export` and `ekko expire` read.

The reply of `GET /v1/models/{model}/tables/{table}/rows?as_of=K[&shards=0,2][&idle_since=E]` is frames, little-endian:

    magic `EKX1` | kind u8, 3 bytes of padding | N u32

kind 0: N rows, keys uint64[N] and then rows int32[N, dim], as stored. kind 1, the last frame: u64 rows and u64 checksum
of all that was sent, N = 16; it is sent only when the rows, read again at one moment, are the same. kind 2, also the
last: N bytes of JSON, an error as every other. A reply without a last frame was cut short.

With `idle_since` only rows come into which nothing has arrived in epoch E or later. Which those are changes with every
delta, so they are not read again.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from ekko.schemas.errors import EkkoError, FormatError, StateUnavailable
from ekko.schemas.hashing import UInt64s, checksum, shard_of
from ekko.schemas.quantize import Int32s
from ekko.storage.serving.wire import decode_error, encode_error

MAGIC = b"EKX1"
_HEADER = struct.Struct("<4sBxxxI")
_TOTAL = struct.Struct("<QQ")
_ROWS, _END, _ERROR = 0, 1, 2
_FRAME_BYTES = 4 * 1024 * 1024


class Run(NamedTuple):
    """Some rows: keys uint64[N], rows int32[N, dim]."""

    keys: UInt64s
    rows: Int32s


class Total(NamedTuple):
    """How many rows, and their checksum."""

    rows: int
    checksum: int

    def plus(self, table: str, run: Run) -> "Total":
        """With a run added."""
        return Total(self.rows + len(run.keys), (self.checksum + checksum(table, run.keys, run.rows)) % 2**64)


def of_shards(runs: Iterator[tuple[UInt64s, Int32s]], shards: Sequence[int], count: int) -> Iterator[Run]:
    """Only the rows of some of the model's `count` shards."""
    for keys, rows in runs:
        if len(shards) < count:
            chosen = np.isin(shard_of(keys, count), shards)
            keys, rows = keys[chosen], rows[chosen]  # noqa: PLW2901
        if len(keys):
            yield Run(keys, rows)


def add_up(table: str, runs: Iterator[Run]) -> Total:
    """The total of all runs."""
    total = Total(0, 0)
    for run in runs:
        total = total.plus(table, run)
    return total


def encode_runs(table: str, runs: Iterator[Run], again: Callable[[], Total] | None, where: str) -> Iterator[bytes]:
    """The frames of a reply.

    Applies go on while rows are sent, so a rollback or a retraction may change what the state holds; `again` reads it
    at one moment, and only if that gives the same total is the reply ended well. None: they need not be of one moment.
    """
    total = Total(0, 0)
    try:
        for run in runs:
            total = total.plus(table, run)
            size = max(1, _FRAME_BYTES // (8 + 4 * run.rows.shape[1]))
            for start in range(0, len(run.keys), size):
                keys, rows = run.keys[start : start + size], run.rows[start : start + size]
                yield b"".join(
                    (_HEADER.pack(MAGIC, _ROWS, len(keys)), keys.astype("<u8").data, rows.astype("<i4").data)
                )
        if again is not None and again() != total:
            raise StateUnavailable(
                f"table {table} changed while it was read: a rollback or retraction came in between",
                hint="export again, as of a later state",
            )
    except EkkoError as error:
        body = encode_error(error, where)
        yield _HEADER.pack(MAGIC, _ERROR, len(body)) + body
    else:
        yield _HEADER.pack(MAGIC, _END, _TOTAL.size) + _TOTAL.pack(*total)


def decode_runs(stream: BinaryIO, table: str, dim: int) -> Iterator[Run]:
    """The runs of a reply, as they come.

    Raises:
        FormatError: not such a reply, cut short, or not what the sender has added up.
        EkkoError: the error that ended it, as the class it had at the store.
    """
    total = Total(0, 0)
    while True:
        magic, kind, count = _HEADER.unpack(_exactly(stream, _HEADER.size))
        if magic != MAGIC:
            raise FormatError(f"{magic!r} begins no frame of rows")
        if kind == _ERROR:
            raise decode_error(_exactly(stream, count), "the store ended the export")
        if kind == _END:
            if Total(*_TOTAL.unpack(_exactly(stream, _TOTAL.size))) != total:
                raise FormatError(f"table {table}: what came is not what the store has sent")
            return
        keys = np.frombuffer(_exactly(stream, 8 * count), "<u8")
        rows = np.frombuffer(_exactly(stream, 4 * count * dim), "<i4").reshape(count, dim)
        run = Run(keys, rows)
        total = total.plus(table, run)
        yield run


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise FormatError(
            "a store's reply ends in the middle of the rows", hint="the store was stopped or cut off: export again"
        )
    return data
