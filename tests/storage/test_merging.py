"""Sums of deltas with equal keys, against a dict."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ekko.storage.engine.merging import sum_duplicates
from tests.storage.truth import signed


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-(1 << 31), (1 << 31) - 1)), max_size=120))
def test_sums_are_those_of_integers_modulo_two_to_the_32(pairs: list[tuple[int, int]]) -> None:
    keys = np.array([key for key, _ in pairs], dtype=np.uint64)
    deltas = np.array([[value, 1] for _, value in pairs], dtype=np.int32).reshape(-1, 2)
    merged, sums = sum_duplicates(keys, deltas)
    expected: dict[int, tuple[int, int]] = {}
    for key, value in pairs:
        before = expected.get(key, (0, 0))
        expected[key] = signed(before[0] + value), before[1] + 1
    assert dict(zip(merged.tolist(), map(tuple, sums.tolist()), strict=True)) == expected


def test_distinct_keys_are_handed_on_uncopied() -> None:
    keys, deltas = np.array([3, 1, 2], np.uint64), np.ones((3, 4), np.int32)
    merged, sums = sum_duplicates(keys, deltas)
    assert merged is keys
    assert sums is deltas
