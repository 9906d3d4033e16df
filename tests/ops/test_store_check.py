"""`ekko store check`: what an operator runs on a stopped store."""

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from ekko.ops.cli import build
from ekko.schemas.errors import ConfigurationError, StoreCorrupt
from tests.storage.stores import opened, uniform_deltas


def run(*words: str) -> tuple[str, BaseException | None]:
    outcome = CliRunner().invoke(build(), ["store", *words])
    return outcome.output, outcome.exception


def test_a_sound_store_is_described_and_a_damaged_one_named(tmp_path: Path) -> None:
    with opened(tmp_path / "replica" / "ctr") as store:
        store.apply("embedding", 1, 1, np.arange(100, dtype=np.uint64), uniform_deltas(100))
        store.flush(store.state)
    output, error = run("check", str(tmp_path))
    assert error is None
    assert "table embedding: 100 rows x 64" in output
    assert "journal entries by epoch: 1: 100" in output
    for file in (tmp_path / "replica" / "ctr" / "rocksdb").glob("*.sst"):
        file.write_bytes(file.read_bytes()[:-100])
    _, error = run("check", str(tmp_path))
    assert isinstance(error, StoreCorrupt)
    assert str(tmp_path / "replica" / "ctr") in error.message


def test_without_a_region_a_store_says_what_is_missing() -> None:
    _, error = run("--replica", "a")
    assert isinstance(error, ConfigurationError)
    assert "--region" in error.message
