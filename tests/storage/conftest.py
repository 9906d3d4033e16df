"""A store on disk for tests that harm it."""

from pathlib import Path

import numpy as np
import pytest

from tests.storage.stores import ROWS, opened, uniform_deltas


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A closed store with rows and journals on disk."""
    with opened(tmp_path / "store") as store:
        for epoch in range(4):
            store.apply("embedding", epoch, epoch, np.arange(ROWS, dtype=np.uint64), uniform_deltas(ROWS, epoch + 1))
            store.flush(store.state)
    return tmp_path / "store"
