"""The key index against a dict: growth, removal, keys chosen to collide, readers beside the writer."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekko.schemas.hashing import UInt64s
from ekko.storage.engine.index import KeyIndex, index_columns
from ekko.storage.engine.memory import Segment
from tests.waiting import wait_for

CAPACITY = 200_000


def new_index() -> KeyIndex:
    return KeyIndex(Segment.create(index_columns(CAPACITY)).arrays)


def insert(index: KeyIndex, keys: UInt64s, held: int) -> None:
    index.insert(keys, np.arange(held, held + len(keys)), held)


def patterns() -> dict[str, UInt64s]:
    count = np.arange(100_000, dtype=np.uint64)
    return {
        "sequential": count,
        "strided": count << np.uint64(44),
        "only high bits": count << np.uint64(47),
        "reversed": ~count,
        "random": np.unique(np.random.default_rng(0).integers(0, 1 << 64, len(count), dtype=np.uint64)),
    }


@pytest.mark.parametrize("pattern", patterns())
def test_any_pattern_of_keys_is_found_in_short_searches(pattern: str) -> None:
    keys = patterns()[pattern]
    index = new_index()
    for start in range(0, len(keys), 7_001):
        insert(index, keys[start : start + 7_001], start)
    np.testing.assert_array_equal(index.find(keys), np.arange(len(keys)))
    home = index._home(keys, index.pages)
    reached = home.copy()
    index._probe(keys, reached)
    assert int(((reached - home) & 1023).max()) < 100
    assert int((index.find(keys + np.uint64(12_345_678_901)) >= 0).sum()) <= len(keys) // 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 400), min_size=1, max_size=60)), max_size=25))
def test_inserts_and_removals_are_those_of_a_dict(steps: list[tuple[bool, set[int]]]) -> None:
    index, truth, slots = new_index(), dict[int, int](), 0
    for adding, some in steps:
        if adding:
            new = np.array(sorted(some - truth.keys()), dtype=np.uint64)
            index.insert(new, np.arange(slots, slots + len(new)), len(truth))
            truth |= {int(key): slots + number for number, key in enumerate(new)}
            slots += len(new)
        else:
            index.remove(np.array(sorted(some), dtype=np.uint64))
            truth = {key: slot for key, slot in truth.items() if key not in some}
        asked = np.arange(401, dtype=np.uint64)
        expected = [truth.get(key, -1) for key in range(401)]
        assert index.find(asked).tolist() == expected
        assert index.find_shared(asked).tolist() == expected


def test_keys_that_come_and_go_for_ever_take_no_more_room() -> None:
    index = new_index()
    for turn in range(60):
        keys = np.arange(turn * 1_000, (turn + 1) * 1_000, dtype=np.uint64)
        insert(index, keys, 0)
        assert (index.find(keys) >= 0).all()
        index.remove(keys)
    assert index.pages < 16
    graves = int((index._entries[: index.pages * 1024, 1] == 1 << 31).sum())
    assert graves < index.pages * 1024 * 0.4


def test_a_reader_never_misses_a_key_while_pages_split() -> None:
    index, keys = new_index(), patterns()["random"]
    insert(index, keys[:1_000], 0)
    missed: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            missed.append(int((index.find_shared(keys[:1_000]) != np.arange(1_000)).sum()))

    reader = threading.Thread(target=read)
    reader.start()
    for start in range(1_000, len(keys), 500):
        insert(index, keys[start : start + 500], start)
        if start % 5_000 == 0:  # the reader has its turn, too
            turns = len(missed)
            wait_for(lambda turns=turns: len(missed) > turns)  # type: ignore[misc]
    stop.set()
    reader.join()
    assert len(missed) > 5
    assert sum(missed) == 0
