"""What a row and a journal entry take: what the store says, what the documentation says, what the system counts."""

import gc
import re
from pathlib import Path

import numpy as np
import psutil

from ekko.storage.engine.arena import row_bytes
from ekko.storage.engine.journal import ENTRY_BYTES
from tests.storage.stores import DIM, opened, uniform_deltas

ROWS = 200_000
OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


def resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def test_memory_is_what_is_stated(tmp_path: Path) -> None:
    keys = np.random.default_rng(1).permutation(np.arange(ROWS, dtype=np.uint64) * np.uint64(11))
    parts = np.array_split(keys, 20)
    a_row, an_entry = row_bytes(DIM), ENTRY_BYTES + 4 * DIM
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, keys[:100], uniform_deltas(100))
        stated, counted = store.memory_bytes(), resident()
        for epoch in (1, 2):
            for part in parts:
                store.apply("embedding", epoch, epoch, part, uniform_deltas(len(part)))
            growth = ROWS * (a_row + epoch * an_entry)
            assert abs(store.memory_bytes() - stated - growth) < 0.01 * growth
            assert 0.8 * growth < resident() - counted < 1.3 * growth


def test_the_documentation_says_the_same() -> None:
    text = OPERATING.read_text(encoding="utf-8")
    assert f"A row takes 4·dim + {row_bytes(0)} bytes" in text
    (entry,) = re.findall(r"a key touched in an epoch (\d+) bytes more", text)
    assert int(entry) == ENTRY_BYTES
