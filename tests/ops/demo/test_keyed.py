"""Rows by key against a plain dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ekko.ops.demo.keyed import KeyedRows


@given(st.lists(st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=8), max_size=6))
def test_behaves_like_a_dictionary(groups: list[set[int]]):
    rows, plain = KeyedRows(2), {}
    for number, group in enumerate(groups):
        keys = np.array(sorted(group), np.uint64)
        new = rows.missing(keys)
        assert set(new.tolist()) == group - plain.keys()
        rows.admit(new, np.full((len(new), 2), number, np.float32))
        plain |= dict.fromkeys(new.tolist(), number)
        assert rows.rows[rows.slots(keys)].tolist() == [[plain[key]] * 2 for key in keys.tolist()]
    rows.clear()
    assert rows.missing(np.array([5], np.uint64)).tolist() == [5]
