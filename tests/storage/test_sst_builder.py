"""The helper process that writes large files: a store waits for it only so long."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.errors import StoreUnwritable
from tests.storage.stores import LARGE, opened, uniform_deltas


def test_a_helper_that_is_stuck_is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = np.arange(LARGE, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, keys, uniform_deltas(LARGE))
        store.flush(store.state)
        helper = store._durable._builder._helper  # type: ignore[attr-defined]
        os.kill(helper.pid, signal.SIGSTOP)
        store.apply("embedding", 1, 1, keys, uniform_deltas(LARGE))
        monkeypatch.setattr("ekko.storage.disk.sst_builder._PATIENCE_S", 0.5)
        with pytest.raises(StoreUnwritable, match="stuck"):
            store.flush(store.state)
        monkeypatch.undo()
        store.flush(store.state)
    with opened(tmp_path / "store") as store:
        assert (store.lookup("embedding", keys)[0] == 2).all()
