"""The pure core of the publisher: nothing of a batch is lost, invented, widened or put into the wrong shard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput
from ekko.schemas.hashing import shard_of
from ekko.schemas.quantize import stochastic_round
from ekko.streams.publisher.batches import (
    BlockLimits,
    check_batch,
    check_position,
    cut,
    quantise,
    wrapped_sum,
)

TABLE = TableDeclaration("users", dim=4)
HUGE = BlockLimits(rows=65_536)


def template(table: TableDeclaration = TABLE, **fields: object) -> DeltaBlock:
    columns = {"keys": np.empty(0, np.uint64), "deltas": np.empty((0, table.dim), np.int32)}
    given = {
        "incarnation": 3,
        "table": table.name,
        "shard": 0,
        "trainer": "t",
        "generation": 2,
        "catalogue": 9,
        **columns,
    }
    return DeltaBlock(**{**given, **fields})  # type: ignore[arg-type]


def blocks_of(
    keys: np.ndarray,
    deltas: np.ndarray,
    *,
    table: TableDeclaration = TABLE,
    shards: int = 4,
    created: np.ndarray | None = None,
    limits: BlockLimits = HUGE,
    sequence: int = 0,
) -> list[DeltaBlock]:
    batch = check_batch(table, keys, deltas, created)
    return list(cut(quantise(batch, shards, seed=1, sequence=sequence), template(table), limits))


def united(blocks: list[DeltaBlock]) -> dict[int, list[int]]:
    """Rows by key; a key that stands in two blocks would be a mistake."""
    rows = [(int(key), row.tolist()) for block in blocks for key, row in zip(block.keys, block.deltas, strict=True)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys that repeat, deltas of all magnitudes, zeros among them, and created flags."""
    count = draw(st.integers(1, 60))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 2**64, size=draw(st.integers(1, 40)), dtype=np.uint64)
    keys = rng.choice(pool, size=count)
    scale = 10.0 ** rng.integers(-9, 2, size=(count, 1)) * (rng.random((count, 1)) < 0.8)
    deltas = (rng.uniform(-1, 1, size=(count, 4)) * scale).astype(draw(st.sampled_from([np.float32, np.float64])))
    return keys, deltas, rng.random(count) < 0.3


@settings(max_examples=150, deadline=None)
@given(batches(), st.integers(1, 9), st.integers(1, 7), st.integers(300, 2_000))
def test_the_blocks_of_a_batch_are_its_quantised_sums(
    batch: tuple[np.ndarray, np.ndarray, np.ndarray], shards: int, rows: int, size: int
) -> None:
    keys, deltas, created = batch
    limits = BlockLimits(rows, size)
    blocks = blocks_of(keys, deltas, shards=shards, created=created, limits=limits, sequence=7)

    # By the plainest road: one key after the other, in the order in which the publisher says it takes them.
    distinct = sorted(set(keys.tolist()), key=lambda key: (int(shard_of(np.uint64([key]), shards)[0]), key))
    sums = np.array([sum(delta.astype(np.float64) for delta in deltas[keys == np.uint64(key)]) for key in distinct])
    expected = stochastic_round(sums, TABLE.fraction_bits, seed=1, sequence=7)
    assert united(blocks) == {key: row.tolist() for key, row in zip(distinct, expected, strict=True) if row.any()}

    for block in blocks:
        assert set(shard_of(block.keys, shards).tolist()) == {block.shard}
        assert 0 < len(block.keys) <= rows
        assert len(encode(block)) <= size
        assert block.deltas.any(axis=1).all(), "an all-zero row is no row"
        assert (block.generation, block.catalogue, block.trainer, block.incarnation) == (2, 9, "t", 3)
        flags = block.created if block.created is not None else np.zeros(len(block.keys), np.bool_)
        assert flags.tolist() == [bool(created[keys == key].any()) for key in block.keys]


@settings(max_examples=60, deadline=None)
@given(batches())
def test_the_wire_loses_nothing_and_takes_the_narrowest_integers(batch: tuple[np.ndarray, ...]) -> None:
    keys, deltas, created = batch
    for block in blocks_of(keys, deltas, created=created):
        encoded = encode(block)
        decoded = Codec().decode(encoded)
        assert decoded.keys.tolist() == block.keys.tolist()
        assert decoded.deltas.tolist() == block.deltas.tolist()
        assert (decoded.created is None) == (block.created is None)
        largest = np.abs(block.deltas.astype(np.int64)).max()
        width = 1 if largest < 127 else 2 if largest < 32_767 else 4
        assert len(encoded) <= 120 + len(block.keys) * (8 + width * 4 + 1)


def test_equal_keys_are_summed_in_float64() -> None:
    deltas = np.array([[1.0] * 4, [2.0**-24] * 4, [-1.0] * 4], np.float32)  # float32 would lose the small one
    (block,) = blocks_of(np.uint64([5, 5, 5]), deltas)
    assert block.deltas.tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("most", [1, 3, 40, 2_000])
def test_runs_of_any_length_are_summed_one_row_after_the_other(most: int) -> None:
    rng = np.random.default_rng(most)
    repeats = np.minimum(rng.zipf(1.3, size=60), most)
    keys = rng.permutation(np.repeat(np.arange(60, dtype=np.uint64), repeats))
    deltas = rng.normal(scale=0.01, size=(len(keys), 4)).astype(np.float32)
    sums = np.zeros((60, 4))
    for key, delta in zip(keys, deltas, strict=True):
        sums[int(key)] += delta
    expected = stochastic_round(sums, TABLE.fraction_bits, seed=1, sequence=0)
    assert united(blocks_of(keys, deltas, shards=1)) == {key: row.tolist() for key, row in enumerate(expected)}


def test_deltas_that_cancel_are_no_row() -> None:
    assert blocks_of(np.uint64([5, 6, 5]), np.float32([[1.0] * 4, [0.0] * 4, [-1.0] * 4])) == []


def test_an_empty_batch_makes_no_blocks() -> None:
    assert blocks_of(np.empty(0, np.uint64), np.empty((0, 4), np.float32)) == []
    assert blocks_of(np.array([]), np.empty((0, 4))) == [], "an empty list has no integer dtype"


def test_tiny_changes_survive_in_expectation() -> None:
    table = TableDeclaration("tiny", dim=1, fraction_bits=10)
    keys = np.arange(20_000, dtype=np.uint64)
    blocks = blocks_of(keys, np.full((20_000, 1), 2.0**-13), table=table)
    assert sum(int(block.deltas.sum()) for block in blocks) == pytest.approx(20_000 / 8, rel=0.1)


def test_a_large_batch_is_cut_to_the_limit_into_parts_of_equal_size() -> None:
    table = TableDeclaration("wide", dim=64)
    rng = np.random.default_rng(1)
    keys, deltas = np.arange(20_000, dtype=np.uint64), rng.normal(size=(20_000, 64))
    blocks = blocks_of(keys, deltas, table=table, shards=1, limits=BlockLimits(65_536, 1_000_000))
    sizes = [len(encode(block)) for block in blocks]
    assert len(blocks) == 6
    assert 800_000 < min(sizes) <= max(sizes) <= 1_000_000
    assert sum(len(block.keys) for block in blocks) == 20_000


def test_a_row_that_fits_no_block_is_refused_with_the_remedy() -> None:
    table = TableDeclaration("wide", dim=4096)
    with pytest.raises(BadInput, match="do not fit into a block of 10000 bytes") as error:
        blocks_of(np.uint64([1]), np.ones((1, 4096)), table=table, limits=BlockLimits(10, 10_000))
    assert "max.message.bytes" in error.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_naming_row_and_key(value: float) -> None:
    deltas = np.zeros((4, 4), np.float32)
    deltas[2, 3] = value
    with pytest.raises(BadInput, match=rf"table users: 1 row\(s\) .* row 2, key 33, value {value}"):
        blocks_of(np.uint64([31, 32, 33, 34]), deltas)


def test_an_overflow_of_a_sum_is_refused_naming_the_key() -> None:
    deltas = np.float32([[0.0] * 4, [100.0] * 4, [0.0] * 4, [100.0] * 4])
    with pytest.raises(BadInput, match=r"key 9 \(first in row 1\) is 200, beyond .*±128"):
        blocks_of(np.uint64([8, 9, 10, 9]), deltas)
    large = np.full((2, 4), 3e38, np.float32)
    with pytest.raises(BadInput, match=r"key 7 .* is 6e\+38"):
        blocks_of(np.uint64([7, 7]), large)
    with pytest.raises(BadInput, match="key 7"):
        blocks_of(np.uint64([7, 7]), np.full((2, 4), 1.7e308))


@pytest.mark.parametrize(
    ("keys", "deltas", "told"),
    [
        (np.float32([1.0]), np.zeros((1, 4)), r"keys are float32\[1\]"),
        (np.array([True]), np.zeros((1, 4)), r"keys are bool\[1\]"),
        (np.array([[1, 2]]), np.zeros((1, 4)), r"keys are int64\[1, 2\]"),
        (np.array(["a"]), np.zeros((1, 4)), "keys are <U1"),
        (np.array([1, -7]), np.zeros((2, 4)), "key -7 in row 1 is negative"),
        (np.uint64([1]), np.zeros((1, 3)), r"deltas are float64\[1, 3\]"),
        (np.uint64([1]), np.zeros((2, 4)), r"deltas are float64\[2, 4\]"),
        (np.uint64([1]), np.zeros(4), r"deltas are float64\[4\]"),
        (np.uint64([1]), np.zeros((1, 4), np.int32), r"deltas are int32\[1, 4\]"),
        (np.uint64([1]), np.zeros((1, 4), np.complex64), r"deltas are complex64"),
    ],
)
def test_a_wrong_shape_or_dtype_is_refused(keys: np.ndarray, deltas: np.ndarray, told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        check_batch(TABLE, keys, deltas, None)
    assert "table users" in error.value.message


@pytest.mark.parametrize(
    ("keys", "deltas", "created", "told"),
    [
        ([1, 2], [[0.5] * 4, [0.5]], None, "table users: deltas are no array"),
        ([[1], [2, 3]], np.zeros((2, 4)), None, "table users: keys are no array"),
        ([1, 2], np.zeros((2, 4)), [[True], [True, False]], "table users: created are no array"),
        ([1, 2], np.array([[0.5] * 4, [None] * 4], object), None, r"deltas are object\[2, 4\]"),
        (np.array([1, "x"], object), np.zeros((2, 4)), None, r"keys are object\[2\]"),
    ],
)
def test_what_is_no_array_is_refused(keys: object, deltas: object, created: object, told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        check_batch(TABLE, keys, deltas, created)  # type: ignore[arg-type]
    assert error.value.hint


@pytest.mark.parametrize("position", ["abc", 7, bytearray(b"abc"), np.bytes_(b"a").decode()])
def test_a_position_that_is_not_bytes_is_refused(position: object) -> None:
    with pytest.raises(BadInput, match=f"position is {type(position).__name__}, not bytes"):
        check_position(position)
    check_position(b"abc")
    check_position(None)


@pytest.mark.parametrize("created", [np.array([1, 0]), np.array([True]), np.array([[True, False]])])
def test_wrong_created_flags_are_refused(created: np.ndarray) -> None:
    with pytest.raises(BadInput, match="created are"):
        check_batch(TABLE, np.uint64([1, 2]), np.zeros((2, 4)), created)


def test_lists_and_signed_integers_are_taken() -> None:
    blocks = blocks_of([1, 2, 2**63 - 1], [[0.5] * 4] * 3)  # type: ignore[arg-type]
    assert sorted(united(blocks)) == [1, 2, 2**63 - 1]
    assert united(blocks_of(np.int16([3]), np.float16([[0.5] * 4]))) == {3: [2**23] * 4}


def test_wrapped_sums_add_up_over_blocks_in_any_order() -> None:
    rng = np.random.default_rng(3)
    rows = rng.integers(-(2**31), 2**31, size=(1_000, 4)).astype(np.int32)
    parts = [wrapped_sum(part) for part in np.array_split(rows[rng.permutation(1_000)], 7)]
    assert sum(parts) % 2**64 == wrapped_sum(rows) == int(rows.astype(object).sum()) % 2**64
