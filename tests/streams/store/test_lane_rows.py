"""Uniting blocks changes no sum, mixes no epochs and tables, and copies nothing that stands alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ekko.schemas.blocks import LaneBlock
from ekko.schemas.epochs import Barrier, Settled
from ekko.streams.applier.rows import merge


def block(
    table: str, arrival: int, effective: int, keys: list[int], *, dim: int = 2, newest: int | None = None
) -> LaneBlock:
    some = np.array(keys, np.uint64)
    deltas = np.arange(len(keys) * dim, dtype=np.int32).reshape(-1, dim)
    return LaneBlock(
        *(1, 1, 0, 1, 0, arrival, effective, 0, Settled(), 0, 0, table, some, deltas), newest_arrival=newest
    )


def sums(rows: list[tuple[str, int, int, np.ndarray, np.ndarray]]) -> dict[tuple[str, int, int, int], list[int]]:
    total: dict[tuple[str, int, int, int], list[int]] = {}
    for table, arrival, effective, keys, deltas in rows:
        for key, delta in zip(keys.tolist(), deltas.tolist(), strict=True):
            known = total.get((table, arrival, effective, key), [0] * len(delta))
            total[table, arrival, effective, key] = [a + b for a, b in zip(known, delta, strict=True)]
    return total


@given(
    st.lists(
        st.builds(
            block,
            st.sampled_from("ab"),
            st.integers(0, 2),
            st.integers(0, 2),
            st.lists(st.integers(0, 9), unique=True, max_size=5),
            newest=st.sampled_from((None, 2, 3)),
        ),
        max_size=12,
    )
)
def test_every_sum_of_a_table_and_pair_of_epochs_is_kept(blocks: list[LaneBlock]) -> None:
    plain = [(b.table, b.newest_arrival or b.arrival, b.effective, b.keys, b.deltas) for b in blocks]
    united = merge(blocks)
    assert sums(list(united)) == sums(plain)
    assert len({rows[:3] for rows in united}) == len(united), "small blocks of one group come in one piece"


def test_a_row_arrived_when_the_newest_of_what_is_summed_did() -> None:
    united = merge([block("a", 3, 3, [1], newest=6), block("a", 3, 3, [2]), block("a", 6, 3, [3])])
    assert [(rows.arrival, rows.effective, rows.keys.tolist()) for rows in united] == [(6, 3, [1, 3]), (3, 3, [2])]


def test_markers_bring_no_rows() -> None:
    assert merge([LaneBlock(1, 1, 0, 1, 0, 3, 3, 0, Settled(), 0, barrier=Barrier(1, 3, 0, 0))]) == []


def test_a_single_block_is_not_copied_and_large_unions_are_cut() -> None:
    large = [block("a", 0, 0, list(range(start, start + 3_000)), dim=64) for start in (0, 1_000, 2_000)]
    united = merge([*large, block("b", 0, 0, [7], dim=1)])
    assert [len(rows.keys) for rows in united] == [3_000, 3_000, 3_000, 1]
    assert all(rows.deltas is whole.deltas for rows, whole in zip(united, large, strict=False))
