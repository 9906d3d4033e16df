"""From a file's values to stored rows: exact for our exports, to the nearest step for others, bad values listed."""

import numpy as np
import pytest

from ekko.ops.exchange.conversion import Findings, find_bad, to_rows
from ekko.ops.exchange.tables import Chunk, Origin
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import BadInput
from ekko.schemas.initializer import initial_rows

ZEROS = TableDeclaration("t", 3)
UNIFORM = TableDeclaration("t", 3, initializer="uniform", scale=0.5, seed=7)
OTHER = TableDeclaration("t", 3, initializer="uniform", scale=0.25, seed=8)
KEYS = np.array([0, 5, 2**64 - 1], np.uint64)


def origin(table: TableDeclaration) -> Origin:
    return Origin("ctr", table, 3, 3, 0)


def steps() -> np.ndarray:
    return np.random.default_rng(3).integers(-(2**31), 2**31, (3, 3)).astype(np.int32)


def served(table: TableDeclaration, rows: np.ndarray) -> np.ndarray:
    return rows + initial_rows(table, KEYS)


@pytest.mark.parametrize("table", [ZEROS, UNIFORM])
def test_an_export_into_the_same_table_keeps_its_bits(table: TableDeclaration) -> None:
    rows = steps()
    assert np.array_equal(to_rows(Chunk(KEYS, rows), origin(table), table), rows)


@pytest.mark.parametrize(("source", "target"), [(UNIFORM, ZEROS), (ZEROS, UNIFORM), (OTHER, UNIFORM)])
def test_an_export_into_a_table_of_another_initialiser_serves_the_same_bits(
    source: TableDeclaration, target: TableDeclaration
) -> None:
    rows = steps()
    made = to_rows(Chunk(KEYS, rows), origin(source), target)
    assert made.dtype == np.int32
    assert np.array_equal(served(target, made), served(source, rows))


def test_floats_are_rounded_to_the_nearest_step_and_the_initialiser_is_taken_off() -> None:
    values = np.array([[0.1, -0.2, 127.0], [0, 1e-9, -128.0], [3e-8, 2.9e-8, 1]], np.float64)
    expected = np.rint(values * 2**24).astype(np.int32)
    assert np.array_equal(served(UNIFORM, to_rows(Chunk(KEYS, values), None, UNIFORM)), expected)
    again = expected * 2.0**-24
    assert np.array_equal(served(UNIFORM, to_rows(Chunk(KEYS, again), None, UNIFORM)), expected), "the second time too"


def test_other_fraction_bits_are_converted_and_what_does_not_fit_is_found() -> None:
    coarse = TableDeclaration("t", 3, fraction_bits=16)
    rows = np.array([[1 << 16, -(1 << 16), 3], [0, 0, 0], [5, 6, 1 << 28]], np.int32)
    findings = Findings()
    find_bad(Chunk(KEYS, rows), origin(coarse), ZEROS, findings)
    assert findings.count == 1
    assert findings.first == [(2**64 - 1, 2, 4096.0)]
    rows[2, 2] = 0
    assert np.array_equal(to_rows(Chunk(KEYS, rows), origin(coarse), ZEROS), rows << 8)


def test_bad_values_are_counted_and_the_first_twenty_listed() -> None:
    findings = Findings()
    values = np.full((30, 3), 1.0, np.float32)
    values[:, 1], values[4, 0], values[5, 2] = 200.0, np.nan, -np.inf
    find_bad(Chunk(np.arange(100, 130, dtype=np.uint64), values), None, ZEROS, findings)
    with pytest.raises(BadInput) as told:
        findings.raise_if_any("f.npz", ZEROS)
    lines = told.value.message.splitlines()
    assert lines[0] == "f.npz: 32 value(s) are not finite or beyond ±128; nothing was published"
    assert lines[1] == "  key 100, column 1: 200"
    assert lines[5:7] == ["  key 104, column 0: nan", "  key 104, column 1: 200"]
    assert lines[8] == "  key 105, column 2: -inf"
    assert len(lines) == 22
    assert lines[-1] == "  and 12 more"


def test_values_at_the_edge_fit() -> None:
    findings = Findings()
    edge = np.array([[-128.0, 128 - 2.0**-24, 0]])
    find_bad(Chunk(KEYS[:1], edge), None, ZEROS, findings)
    assert findings.count == 0
    find_bad(Chunk(KEYS[:1], edge + 2.0**-24), None, ZEROS, findings)
    assert findings.count == 1
