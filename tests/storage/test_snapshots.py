"""Snapshots of a real store: taken on a schedule, pruned, put back, and what was written since is not in them."""

import os
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import StoreUnwritable
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.disk.snapshots import Schedule, put_back, read, take
from ekko.storage.store import Store

MODEL = ModelDeclaration("ctr", shards=1, tables=(TableDeclaration("a", 4),), incarnation=0)
KEYS = np.arange(1_000, dtype=np.uint64)


def open_store(path: Path) -> Store:
    return Store.open(path, MODEL, [0], region_incarnation=0, memory_bytes=1 << 28)


def state(contiguous: int) -> ReplicaState:
    return ReplicaState("ctr", 0, 0, {0: ShardPosition(contiguous=contiguous, complete=contiguous)})


def change(store: Store, epoch: int) -> None:
    store.apply("a", epoch, epoch, KEYS, np.full((len(KEYS), 4), epoch + 1, np.int32))
    store.flush(state(epoch))


def test_a_store_put_back_is_what_it_was_and_can_still_undo(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    change(store, 0)
    change(store, 1)
    expected, journal = store.checksum("a"), store.checksum("a", as_of=1)
    snapshot = take(store, tmp_path / "snapshots", 100)
    change(store, 2)
    assert store.checksum("a") != expected
    store.close()
    put_back(snapshot, tmp_path / "again")
    again = open_store(tmp_path / "again")
    assert again.state.shards[0].contiguous == 1
    assert again.checksum("a") == expected
    assert again.checksum("a", as_of=1) == journal
    change(again, 2)
    again.close()
    # What is put back shares files with the snapshot, and yet leaves it as it was.
    put_back(read(tmp_path / "snapshots")[0], tmp_path / "twice")
    twice = open_store(tmp_path / "twice")
    assert twice.checksum("a") == expected
    twice.close()


def test_a_schedule_takes_and_prunes_them(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    schedule = Schedule(tmp_path / "snapshots", every_s=10, keep=2)
    assert schedule.step(store, 0) is None
    assert schedule.step(store, 11) is None, "nothing is flushed yet"
    change(store, 0)
    taken = [schedule.step(store, second) for second in range(12, 60, 4)]
    assert [snapshot.taken_s for snapshot in taken if snapshot is not None] == [12, 24, 36, 48]
    assert [snapshot.taken_s for snapshot in read(tmp_path / "snapshots")] == [36, 48]
    store.close()


def test_an_old_one_that_cannot_be_removed_is_told_and_the_others_are_pruned(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    schedule = Schedule(tmp_path / "snapshots", every_s=10, keep=1)
    change(store, 0)
    first = schedule.take_now(store, 10)
    first.path.rename(tmp_path / "elsewhere")
    first.path.symlink_to(tmp_path / "elsewhere")  # somebody has moved it to another disk
    for second in (20, 30):
        with pytest.raises(StoreUnwritable, match="/10"):
            schedule.take_now(store, second)
    assert [snapshot.taken_s for snapshot in read(tmp_path / "snapshots")] == [10, 30]
    store.close()


def test_what_is_no_whole_snapshot_is_left_out(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    change(store, 0)
    take(store, tmp_path / "snapshots", 5)
    (tmp_path / "snapshots" / "6").mkdir()
    (tmp_path / "snapshots" / "7.partial").mkdir()
    (tmp_path / "snapshots" / "8").mkdir()
    (tmp_path / "snapshots" / "8" / "state").write_bytes(b"EK")
    assert [snapshot.taken_s for snapshot in read(tmp_path / "snapshots")] == [5]
    assert read(tmp_path / "nowhere") == []
    store.close()


class Disk:
    """What is synced, in the order of it, and what was not when a folder got its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[Path] = set()
        self.unsynced: dict[str, list[Path]] = {}
        fsync, rename = os.fsync, Path.rename

        def synced(opened: int) -> None:
            self.synced.add(Path(f"/proc/self/fd/{opened}").readlink())
            fsync(opened)

        def renamed(path: Path, target: Path) -> Path:
            inside = [path, *path.rglob("*")]
            self.unsynced[target.name] = [each for each in inside if each not in self.synced]
            self.synced.discard(target.parent)
            return rename(path, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "rename", renamed)


def test_what_a_crash_would_cut_short_never_has_the_name_of_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    change(store, 0)
    with monkeypatch.context() as watched:
        disk = Disk(watched)
        snapshot = take(store, tmp_path / "snapshots", 5)
        assert disk.unsynced == {"5": []}
        assert tmp_path / "snapshots" in disk.synced, "its name, too"
        put_back(snapshot, tmp_path / "again")
        assert disk.unsynced["again"] == []
        assert tmp_path in disk.synced
    store.close()


def test_a_store_is_put_back_beside_the_draft_of_another_region(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    change(store, 0)
    other = tmp_path / "ctr@7.partial"
    other.mkdir()
    put_back(take(store, tmp_path / "snapshots", 5), tmp_path / "ctr@7.east@3")
    store.close()
    assert other.exists()
    assert (tmp_path / "ctr@7.east@3").is_dir()
