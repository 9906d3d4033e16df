"""Where interactions come from, and what is told when it is not the real thing."""

from pathlib import Path

import numpy as np
import pytest

from ekko.ops.demo.dataset import default_cache, interactions_of, load_interactions
from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions
from ekko.schemas.errors import ConfigurationError

SMALL = SyntheticShape(interactions=2_000, users=50, items=80, periods=8)


def test_without_a_registry_the_synthetic_stream_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    interactions = load_interactions(tmp_path)
    assert interactions.origin.startswith("synthetic")
    assert "MovieLens 100K is not available" in interactions.notice
    assert len(interactions) == 100_000


def test_an_unwritable_cache_is_no_crash(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    assert "not available" in load_interactions(tmp_path / "file").notice


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EKKO_CACHE", "/somewhere")
    assert default_cache() == Path("/somewhere/datasets")


def test_synthetic_stream_is_a_function_of_its_seed():
    one, same, other = (synthetic_interactions(seed, SMALL) for seed in (1, 1, 2))
    assert np.array_equal(one.keys, same.keys)
    assert np.array_equal(one.labels, same.labels)
    assert not np.array_equal(one.labels, other.labels)


def test_synthetic_stream_is_in_time_order_with_both_labels():
    stream = synthetic_interactions(3, SMALL)
    assert len(stream) == SMALL.interactions
    assert (np.diff(stream.timestamps) >= 0).all()
    assert 0.3 < stream.labels.mean() < 0.7
    assert stream.keys.shape == stream.values.shape


def test_vocabulary_is_every_key_once():
    stream = synthetic_interactions(3, SMALL)
    vocabulary = stream.vocabulary()
    assert (np.diff(vocabulary) > 0).all()
    assert np.isin(stream.keys, vocabulary).all()


def test_a_saved_stream_is_read_back_as_it_was(tmp_path: Path):
    stream = synthetic_interactions(3, SMALL)
    stream.save(tmp_path / "stream.npz")
    read = Interactions.load(tmp_path / "stream.npz")
    assert (read.origin, read.notice, read.user_columns, read.dropped) == (stream.origin, stream.notice, 3, {})
    for column in ("timestamps", "labels", "keys", "values"):
        assert np.array_equal(getattr(read, column), getattr(stream, column))
        assert getattr(read, column).dtype == getattr(stream, column).dtype


def test_a_file_of_ones_own_comes_with_its_columns(tmp_path: Path):
    file = tmp_path / "clicks.tsv"
    file.write_text("u\ti\tt\tclicked\nann\tx\t5\t1\n")
    columns = "user=u,item=i,time=t,label=clicked"
    read = interactions_of(file, columns, tmp_path)
    assert (read.origin, len(read)) == ("clicks.tsv", 1)
    with pytest.raises(ConfigurationError, match="--columns is missing"):
        interactions_of(file, None, tmp_path)
    with pytest.raises(ConfigurationError, match="--data is missing"):
        interactions_of(None, columns, tmp_path)
