"""Quantising, hashing, initialisers: properties and values that may never change."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput, ConfigurationError
from ekko.schemas.hashing import checksum, row_hashes, shard_of, splitmix64, table_seed
from ekko.schemas.initializer import initial_rows
from ekko.schemas.quantize import pack, round_to_nearest, stochastic_round, to_float, unpack

int32_rows = hnp.arrays(np.int32, st.tuples(st.integers(0, 20), st.integers(1, 9)))


@given(rows=int32_rows)
def test_packing_is_lossless_and_narrowest(rows: np.ndarray) -> None:
    width, data = pack(rows)
    assert np.array_equal(unpack(width, data, rows.shape[1]), rows)
    if width > 1:
        bound = 2 ** (4 * width - 1)  # half the width's bits: the next narrower type
        assert (rows < -bound).any() or (rows >= bound).any()


@given(
    values=hnp.arrays(np.float32, (7, 3), elements=st.floats(-100, 100, width=32)),
    sequence=st.integers(0, 2**63),
)
def test_stochastic_rounding_is_within_a_step_and_repeatable(values: np.ndarray, sequence: int) -> None:
    rows = stochastic_round(values, 20, seed=3, sequence=sequence)
    assert (np.abs(rows - values.astype(np.float64) * 2**20) <= 1).all()
    assert np.array_equal(rows, stochastic_round(values, 20, seed=3, sequence=sequence))


def test_stochastic_rounding_is_unbiased_below_half_a_step() -> None:
    """A change of 0.1 step survives in expectation: the mean of 200,000 lies within 5 standard errors."""
    values = np.full((200_000, 1), 0.1 * 2.0**-24)
    mean = stochastic_round(values, 24, seed=1, sequence=1).mean()
    assert abs(mean - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 200_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 128.0, -128.1, 3e38])
def test_what_no_row_may_receive_is_refused_with_its_place(bad: float) -> None:
    values = np.zeros((4, 3), dtype=np.float32)
    values[2, 1] = bad
    for quantise in (
        lambda: stochastic_round(values, 24, seed=0, sequence=0),
        lambda: round_to_nearest(values, 24),
    ):
        with pytest.raises(BadInput, match="row 2, column 1"):
            quantise()


@given(rows=hnp.arrays(np.int32, (5, 4), elements=st.integers(-(2**23), 2**23)))
def test_the_second_round_trip_equals_the_first(rows: np.ndarray) -> None:
    assert np.array_equal(round_to_nearest(to_float(rows, 24), 24), rows)


def test_hashes_are_what_format_md_says() -> None:
    """Published splitmix64 outputs for state 0 and 1 increment: the shard of a key is the same everywhere, for ever."""
    zero_one = splitmix64(np.array([0, 1], dtype=np.uint64))
    assert [hex(value) for value in zero_one] == ["0xe220a8397b1dcdaf", "0x910a2dec89025cc1"]
    assert shard_of(np.arange(8, dtype=np.uint64), 8).tolist() == [7, 1, 6, 5, 2, 2, 0, 7]
    assert table_seed("embedding") == 0x4A48353AD6107ED2
    rows = np.array([[1, -1], [0, 0], [2**31 - 1, -(2**31)]], dtype=np.int32)
    assert row_hashes("embedding", np.array([1, 2, 3], dtype=np.uint64), rows).tolist() == [
        15439697026688029215,
        0,
        4669567744304042515,
    ]


@given(shards=st.integers(1, 256), keys=hnp.arrays(np.uint64, st.integers(0, 50)))
def test_a_shard_is_a_partition_number(shards: int, keys: np.ndarray) -> None:
    numbers = shard_of(keys, shards)
    assert numbers.dtype == np.int32
    assert ((numbers >= 0) & (numbers < shards)).all()


def test_shards_of_structured_keys_are_even() -> None:
    for keys in (np.arange(80_000), np.arange(80_000) << 32, np.arange(80_000) * 8):
        counts = np.bincount(shard_of(keys.astype(np.uint64), 8), minlength=8)
        assert counts.min() > 9_500


@given(rows=hnp.arrays(np.int32, (6, 3)), order=st.permutations(range(6)))
def test_a_checksum_does_not_depend_on_order_but_on_everything_else(rows: np.ndarray, order: list[int]) -> None:
    keys = np.arange(6, dtype=np.uint64)
    total = checksum("t", keys, rows)
    assert checksum("t", keys[order], rows[order]) == total
    changed = rows.copy()
    changed[0, 0] ^= 1
    assert checksum("t", keys, changed) != total
    assert not rows.any() or checksum("u", keys, rows) != total


def test_initial_rows_are_a_function_of_key_and_column() -> None:
    table = TableDeclaration("t", 3, 24, "uniform", 0.01, 7)
    rows = initial_rows(table, np.array([5, 9, 5], dtype=np.uint64))
    assert rows.tolist() == [[-36167, 126391, 26884], [148570, -5375, 164649], [-36167, 126391, 26884]]
    many = to_float(initial_rows(table, np.arange(10_000, dtype=np.uint64)), 24)
    assert abs(many.mean()) < 2e-4
    assert -0.01 <= many.min() < -0.0099 < 0.0099 < many.max() <= 0.01
    assert not initial_rows(TableDeclaration("z", 4), np.arange(3, dtype=np.uint64)).any()


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_reader_could_use_is_refused(seed: int) -> None:
    with pytest.raises(ConfigurationError, match="seed"):
        TableDeclaration("t", 1, 24, "uniform", 0.1, seed)
