"""Sealed snapshots: copied out and back bit for bit, and nothing that is damaged or cut short is taken for whole."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ekko.schemas.errors import ConfigurationError, EkkoError, FormatTooNew, StoreCorrupt, StoreLocked, StoreUnwritable
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.disk.sealed import (
    SEAL,
    Sealed,
    _digest_of_body,
    copy_in,
    copy_out,
    digest_of,
    find_sealed,
    fresh_partial,
    read_sealed,
)
from ekko.storage.disk.snapshots import take, take_closed
from tests.storage.stores import keys_of, open_store, uniform_deltas

NAME = "ctr@7.east@3"


def no_progress(count: int) -> None:
    assert count > 0


def flushed_store(folder: Path) -> int:
    """A store with some rows, closed; their checksum."""
    store = open_store(folder)
    store.apply("embedding", 1, 1, keys_of(1, 2, 3), uniform_deltas(3, 5))
    positions = {shard: ShardPosition(contiguous=4, complete=1) for shard in range(2)}
    store.flush(ReplicaState("ctr", 7, 3, positions))
    total = store.checksum("embedding")
    store.close()
    return total


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    flushed_store(tmp_path / "store")
    snapshot = take_closed(tmp_path / "store", tmp_path / "snapshots", 100)
    return copy_out(snapshot.path, tmp_path / "out" / NAME, "east", 100, no_progress)


def test_what_is_copied_out_and_in_again_is_the_same_store(tmp_path: Path, sealed: Sealed) -> None:
    (found,) = find_sealed(tmp_path / "out")
    assert found == sealed == read_sealed(tmp_path / "out" / NAME)
    assert (found.region, found.taken_s, found.state.complete, found.size > 0) == ("east", 100, 1, True)
    partial = fresh_partial(tmp_path / "again")
    copy_in(found, partial, no_progress)
    store = open_store(partial)
    assert store.checksum("embedding") == flushed_store(tmp_path / "other")
    assert store.state.shards[0].contiguous == 4
    store.close()


def test_a_store_that_runs_cannot_be_opened_beside_itself(tmp_path: Path) -> None:
    flushed_store(tmp_path / "store")
    store = open_store(tmp_path / "store")
    with pytest.raises(StoreLocked):
        take_closed(tmp_path / "store", tmp_path / "snapshots", 1)
    take(store, tmp_path / "snapshots", 2)
    store.close()


def test_a_store_that_was_never_flushed_has_no_snapshot(tmp_path: Path) -> None:
    open_store(tmp_path / "store").close()
    with pytest.raises(StoreCorrupt, match="never flushed"):
        take_closed(tmp_path / "store", tmp_path / "snapshots", 1)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _table_file(folder: Path) -> Path:
    return max(folder.rglob("*.sst"), key=lambda path: path.stat().st_size)


def _newer(folder: Path) -> None:
    body = json.loads((folder / SEAL).read_text())
    (folder / SEAL).write_text(json.dumps({**body, "format": 2}))


def _other_model(folder: Path) -> None:
    (folder / SEAL).write_text((folder / SEAL).read_text().replace('"taken_s": 100', '"taken_s": 999'))


def _outside(folder: Path) -> None:
    """A file beside the snapshot, sealed as carefully as those in it."""
    body = json.loads((folder / SEAL).read_text())
    del body["digest"]
    (folder.parent / "theirs").write_bytes(b"anything")
    body["files"]["../theirs"] = [8, digest_of(folder.parent / "theirs")]
    (folder / SEAL).write_text(json.dumps({**body, "digest": _digest_of_body(body)}))


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (lambda folder: _flip(_table_file(folder)), StoreCorrupt, "damaged: its checksum differs"),
        (lambda folder: _table_file(folder).unlink(), StoreCorrupt, "incomplete: rocksdb/.*sst is missing"),
        (lambda folder: _table_file(folder).write_bytes(b"short"), StoreCorrupt, "5 bytes, not"),
        (lambda folder: (folder / "state").write_bytes(b"EK"), StoreCorrupt, "version vector is damaged"),
        (lambda folder: (folder / SEAL).write_text("{"), StoreCorrupt, "seal cannot be read"),
        (_other_model, StoreCorrupt, "its seal is damaged"),
        (_newer, FormatTooNew, "format 2"),
        (_outside, StoreCorrupt, "'../theirs', which is not in it"),
        (lambda folder: folder.rename(folder.with_name(f"{NAME}.partial")), ConfigurationError, "cut short"),
    ],
)
def test_nothing_damaged_is_taken_for_whole(
    tmp_path: Path, sealed: Sealed, damage: Callable[[Path], None], error: type[EkkoError], words: str
) -> None:
    damage(sealed.path)
    partial = fresh_partial(tmp_path / "again")
    with pytest.raises(error, match=words):
        copy_in(find_sealed(tmp_path / "out")[0], partial, no_progress)
    assert not partial.exists() or not any(partial.iterdir())


def test_nothing_is_ever_replaced(tmp_path: Path, sealed: Sealed) -> None:
    with pytest.raises(ConfigurationError, match="exists"):
        copy_out(tmp_path / "snapshots" / "100", sealed.path, "east", 100, no_progress)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreUnwritable):
        copy_out(tmp_path / "snapshots" / "100", tmp_path / "file" / NAME, "east", 100, no_progress)
    with pytest.raises(ConfigurationError, match="no snapshot"):
        find_sealed(tmp_path / "snapshots")


def test_a_folder_that_came_into_being_meanwhile_is_not_replaced(tmp_path: Path, sealed: Sealed) -> None:
    target = tmp_path / "late"

    def somebody_else_makes_it(_: int) -> None:
        (target / "theirs").mkdir(parents=True, exist_ok=True)

    with pytest.raises(StoreUnwritable, match="late"):
        copy_out(tmp_path / "snapshots" / "100", target, "east", 100, somebody_else_makes_it)
    assert [path.name for path in target.iterdir()] == ["theirs"]
    copy_out(tmp_path / "snapshots" / "100", sealed.path.with_name("another"), "east", 100, no_progress)
