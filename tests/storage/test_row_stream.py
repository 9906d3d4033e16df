"""The streamed rows of a table: whole, or told to be not."""

import io
from collections.abc import Iterator

import numpy as np
import pytest

from ekko.schemas.errors import FormatError, StateUnavailable
from ekko.schemas.hashing import shard_of
from ekko.storage.serving.row_stream import Run, Total, add_up, decode_runs, encode_runs, of_shards

KEYS = np.random.default_rng(1).permutation(np.arange(40_000, dtype=np.uint64))
ROWS = np.random.default_rng(2).integers(-(2**31), 2**31, (40_000, 33)).astype(np.int32)


def runs() -> Iterator[Run]:
    for start in range(0, 40_000, 39_000):  # one run of several frames, one of less than one
        yield Run(KEYS[start : start + 39_000], ROWS[start : start + 39_000])


def body(total: Total | None = None) -> bytes:
    return b"".join(encode_runs("t", runs(), lambda: add_up("t", runs()) if total is None else total, "here"))


def decode(data: bytes) -> list[Run]:
    return list(decode_runs(io.BytesIO(data), "t", 33))


def test_rows_come_as_they_were_sent() -> None:
    decoded = decode(body())
    assert len(decoded) > 2
    assert np.array_equal(np.concatenate([run.keys for run in decoded]), KEYS)
    assert np.array_equal(np.concatenate([run.rows for run in decoded]), ROWS)


def test_a_state_that_changed_meanwhile_is_told() -> None:
    with pytest.raises(StateUnavailable, match="table t changed while it was read"):
        decode(body(Total(40_000, 1)))


def test_an_error_in_the_middle_keeps_its_class() -> None:
    def broken() -> Iterator[Run]:
        yield from runs()
        raise StateUnavailable("withdrawn", hint="another one")

    data = b"".join(encode_runs("t", broken(), lambda: Total(0, 0), "here"))
    with pytest.raises(StateUnavailable, match=r"withdrawn \(here\)") as told:
        decode(data)
    assert told.value.hint == "another one"


@pytest.mark.parametrize("length", [0, 5, 12, 100_000, -1, -28])
def test_a_reply_cut_short_is_told(length: int) -> None:
    with pytest.raises(FormatError, match="ends in the middle"):
        decode(body()[:length])


def test_a_flipped_bit_is_told() -> None:
    data = bytearray(body())
    data[1_000_000] ^= 4
    with pytest.raises(FormatError, match="what came is not"):
        decode(bytes(data))


def test_only_the_shards_asked_for() -> None:
    chosen = np.concatenate([run.keys for run in of_shards(((r.keys, r.rows) for r in runs()), (1, 3), 4)])
    assert sorted(chosen.tolist()) == sorted(KEYS[np.isin(shard_of(KEYS, 4), [1, 3])].tolist())
