"""What disks do to a store: rows go missing, space runs out, others hold the folder. Said aloud, never a wrong row."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rocksdict import Options, Rdict

from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import ConfigurationError, FormatTooNew, StoreCorrupt, StoreLocked, StoreUnwritable
from ekko.storage.disk.checking import check_folder, find_stores
from ekko.storage.disk.sst_builder import SstBuilder
from ekko.storage.store import Store
from tests.storage.stores import LARGE, MODEL, ROWS, content, keys_of, open_store, opened, uniform_deltas

FEW = 1_500
"""Fewer cells than are written by the helper process."""


@contextmanager
def database(folder: Path) -> Iterator[Rdict]:
    opened_database = Rdict(str(folder / "rocksdb"), Options(raw_mode=True))
    yield opened_database
    opened_database.close()


def test_a_row_that_is_missing_or_changed_is_noticed_though_every_block_is_sound(folder: Path) -> None:
    key = b"R\0\0" + (17).to_bytes(8, "big")
    with database(folder) as rows:
        row = rows[key]
        del rows[key]
    with pytest.raises(StoreCorrupt, match="2999 rows"):
        open_store(folder)
    with database(folder) as rows:
        rows[key] = row[:-1] + b"\x07"
    with pytest.raises(StoreCorrupt, match="checksum"):
        open_store(folder)
    with pytest.raises(StoreCorrupt, match="checksum"):
        check_folder(folder)
    with database(folder) as rows:
        rows[key] = row
    assert check_folder(folder).tables[0].rows == ROWS


def test_a_cell_of_another_length_is_noticed(folder: Path) -> None:
    with database(folder) as rows:
        rows[b"J\0\0\0\0\0\0" + (17).to_bytes(8, "big")] = b"short"
    with pytest.raises(StoreCorrupt, match="long"):
        open_store(folder)


def test_a_manifest_of_a_later_format_asks_for_an_upgrade(folder: Path) -> None:
    with database(folder) as rows:
        manifest = json.loads(rows[b"M"])
        rows[b"M"] = json.dumps(manifest | {"format": 2}).encode()
    with pytest.raises(FormatTooNew, match="format 2"):
        open_store(folder)
    with database(folder) as rows:
        rows[b"M"] = b"no json"
    with pytest.raises(StoreCorrupt, match="manifest"):
        open_store(folder)


def test_a_kill_between_writing_and_ingesting_leaves_nothing(folder: Path) -> None:
    expected = content(folder)
    (folder / "incoming" / "9.sst").write_bytes(b"half a file")
    assert content(folder) == expected
    assert not list((folder / "incoming").iterdir())


@contextmanager
def full_disk(process: int, limit: int) -> Iterator[None]:
    """No file of the process may grow beyond `limit`, as on a full disk."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def helper_of(store: Store) -> int:
    helper = store._durable._builder._helper  # type: ignore[attr-defined]
    assert helper is not None
    return int(helper.pid)


@pytest.mark.parametrize("rows", [FEW, LARGE], ids=["written here", "written by the helper"])
def test_a_full_disk_is_told_and_survived(tmp_path: Path, rows: int) -> None:
    keys = np.arange(rows, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, np.arange(LARGE, dtype=np.uint64), uniform_deltas(LARGE))
        store.flush(store.state)
        store.apply("embedding", 1, 1, keys, uniform_deltas(rows))
        process = helper_of(store) if rows > FEW else 0
        with full_disk(process, 100_000), pytest.raises(StoreUnwritable) as caught:
            store.flush(store.state)
        assert caught.value.hint
        assert store.lookup("embedding", keys[:1])[0][0, 0] == 2
        store.flush(store.state)
        expected = [store.checksum("embedding", state) for state in range(3)]
    with opened(tmp_path / "store") as store:
        assert [store.checksum("embedding", state) for state in range(3)] == expected


def test_a_disk_that_became_read_only_is_told_and_survived(tmp_path: Path) -> None:
    """The file system refuses every new file, as one that was remounted read-only after an error."""
    keys = np.arange(FEW, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, keys, uniform_deltas(FEW))
        store.flush(store.state)
        store.apply("embedding", 1, 1, keys, uniform_deltas(FEW))
        incoming = tmp_path / "store" / "incoming"
        incoming.rmdir()
        incoming.write_bytes(b"")  # permissions would not stop the tests' user, if that is root
        with pytest.raises(StoreUnwritable) as caught:
            store.flush(store.state)
        assert str(tmp_path) in caught.value.message
        assert caught.value.hint
        assert (store.lookup("embedding", keys)[0] == 2).all()
        incoming.unlink()
        incoming.mkdir()
        store.flush(store.state)
    with opened(tmp_path / "store") as store:
        assert (store.lookup("embedding", keys)[0] == 2).all()
        assert (store.lookup("embedding", keys, 1)[0] == 1).all()


def test_a_helper_that_was_killed_is_replaced(tmp_path: Path) -> None:
    keys = np.arange(LARGE, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        for epoch in range(2):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(LARGE))
            store.flush(store.state)
            os.kill(helper_of(store), signal.SIGKILL)
            store._durable._builder._helper.wait()  # type: ignore[attr-defined]
        expected = store.checksum("embedding")
    with opened(tmp_path / "store") as store:
        assert store.checksum("embedding") == expected


def test_a_helper_that_died_with_a_request_half_sent_can_be_closed() -> None:
    builder = SstBuilder()
    builder._helper = helper = builder._started()
    assert helper.stdin is not None
    helper.stdin.write(b"half a requ")
    os.kill(helper.pid, signal.SIGKILL)
    helper.wait(120)
    builder.close()
    builder.close()


@pytest.mark.parametrize("note", [b"", b"\xff\xb2", "²".encode(), b"-1"])
def test_a_number_of_commits_that_cannot_be_read_stops_nobody(folder: Path, note: bytes) -> None:
    expected = content(folder)
    (folder / "commits").write_bytes(note)
    assert content(folder) == expected


def test_a_folder_that_cannot_be_written_is_named() -> None:
    with pytest.raises(ConfigurationError, match="/proc/store"):
        open_store(Path("/proc/store"))


def test_a_second_process_is_told_who_holds_the_folder(folder: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.storage.stores import open_store\n"
        "store = open_store(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read(); store.close()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreLocked, match=f"process {other.pid}"):
            open_store(folder)
        assert other.stdin is not None
        other.stdin.close()
    open_store(folder).close()


def test_a_folder_of_another_incarnation_or_other_shards_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="incarnation 7, not 8"):
        open_store(folder, replace(MODEL, incarnation=8))
    with pytest.raises(ConfigurationError, match=r"shards \[0, 1\], not \[0, 1, 2\]"):
        open_store(folder, replace(MODEL, shards=3))
    with pytest.raises(ConfigurationError, match="dim 64 on disk, 8 in the catalogue"):
        open_store(folder, replace(MODEL, tables=(TableDeclaration("embedding", 8),)))


def test_a_check_tells_what_there_is(folder: Path, tmp_path: Path) -> None:
    assert find_stores(tmp_path) == [folder]
    report = check_folder(folder)
    assert report.state.bound == 0
    (table,) = report.tables
    with opened(folder) as store:
        assert (table.rows, table.checksum) == (ROWS, store.checksum("embedding"))
        assert table.journals == dict.fromkeys(range(4), ROWS)
        with pytest.raises(StoreLocked):
            check_folder(folder)
    with pytest.raises(ConfigurationError, match="no store"):
        find_stores(tmp_path / "elsewhere")


def test_rows_that_are_zero_leave_the_disk_and_the_memory(tmp_path: Path) -> None:
    keys = np.arange(ROWS, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        store.apply("embedding", 0, 0, keys, uniform_deltas(ROWS, 3))
        store.flush(store.state)
        full = store._tables["embedding"].memory_bytes()
        store.apply("embedding", 1, 1, keys[1:], uniform_deltas(ROWS - 1, -3))
        store.raise_bound(2)
        for _ in range(2):
            store.flush(store.state)
        assert store.row_count("embedding") == 1
        assert store._tables["embedding"].memory_bytes() < full / 100
        assert not store.lookup("embedding", keys_of(5))[1].any()
        store.apply("embedding", 2, 2, keys_of(5, 9_999), uniform_deltas(2, 4))
        assert store.lookup("embedding", keys_of(0, 4, 5, 9_999))[0][:, 0].tolist() == [3, 0, 4, 4]
        store.flush(store.state)
    with database(tmp_path / "store") as rows:
        assert len([key for key in rows.keys(from_key=b"R") if key < b"S"]) == 3
    assert check_folder(tmp_path / "store").tables[0].rows == 3


def test_a_slot_that_is_given_up_is_given_out_once(tmp_path: Path) -> None:
    gone, first, second = (np.arange(100, dtype=np.uint64) + np.uint64(start) for start in (0, 1_000, 2_000))
    with opened(tmp_path / "store") as store:
        for value in (3, -3):
            store.apply("embedding", 1, 1, gone, uniform_deltas(100, value))
        store.flush(store.state)  # zero rows, whose cells wait for the bound to rise
        for value in (3, -3):
            store.apply("embedding", 1, 1, gone, uniform_deltas(100, value))
        store.raise_bound(2)
        for _ in range(4):
            store.flush(store.state)  # the cells leave the disk by two ways at once
        store.apply("embedding", 2, 2, first, uniform_deltas(100, 4))
        store.apply("embedding", 2, 2, second, uniform_deltas(100, 5))
        assert (store.lookup("embedding", first)[0] == 4).all()
        assert (store.lookup("embedding", second)[0] == 5).all()


def test_rows_that_become_zero_again_and_again_are_remembered_once(tmp_path: Path) -> None:
    keys = np.arange(100, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        for _ in range(5):
            for value in (3, -3):
                store.apply("embedding", 1, 1, keys, uniform_deltas(100, value))
            store.flush(store.state)
        assert len(store._flusher.waiting["embedding"]) == 100
