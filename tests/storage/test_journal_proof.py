"""Journals on disk are what the last flush left, or a start and `ekko store check` say which one is not, and how."""

import json
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StoreCorrupt
from ekko.storage.disk.checking import check_folder
from tests.storage.stores import ROWS, open_store, opened, uniform_deltas
from tests.storage.test_disk import FEW, database


@pytest.mark.parametrize("harm", ["missing", "changed", "added", "gone"])
def test_an_entry_of_a_journal_that_is_missing_changed_or_added_is_noticed(folder: Path, harm: str) -> None:
    """RocksDB's own checksums agree: it was told to write, or to delete, just this."""
    journal, key = b"J\0\0\0\2\0\0", (17).to_bytes(8, "big")
    with database(folder) as cells:
        if harm == "missing":
            del cells[journal + key]
        elif harm == "changed":
            value = cells[journal + key]
            assert value is not None
            cells[journal + key] = value[:-1] + b"\x07"
        elif harm == "added":
            cells[journal + (ROWS + 1).to_bytes(8, "big")] = cells[journal + key]
        else:
            cells.delete_range(journal, journal + b"\xff" * 9)
    count = {"missing": ROWS - 1, "changed": ROWS, "added": ROWS + 1, "gone": 0}[harm]
    for reading in (open_store, check_folder):
        with pytest.raises(StoreCorrupt, match=f"table embedding: journal 2 has {count} entries") as caught:
            reading(folder)
        assert f"left {ROWS} with" in caught.value.message
        assert str(folder) in caught.value.message
        assert caught.value.hint


def test_a_folder_of_earlier_software_tells_nothing_of_its_journals_until_the_next_flush(folder: Path) -> None:
    with database(folder) as cells:
        body = json.loads(cells[b"M"] or b"")
        assert len(body["journal_tallies"]) == 4
        del body["journal_tallies"]
        cells[b"M"] = json.dumps(body).encode()
        missing = b"J\0\0\0\2\0\0" + (17).to_bytes(8, "big")
        del cells[missing]
    assert check_folder(folder).tables[0].journals[2] == ROWS - 1
    with opened(folder) as store:
        store.flush(store.state)
    with database(folder) as cells:
        tallies = {label: entries for label, _, entries, _ in json.loads(cells[b"M"] or b"")["journal_tallies"]}
    assert tallies == {0: ROWS, 1: ROWS, 2: ROWS - 1, 3: ROWS}


def test_the_proof_of_journals_follows_late_deltas_unions_undo_and_let_go_values(tmp_path: Path) -> None:
    keys = np.arange(FEW, dtype=np.uint64)
    with opened(tmp_path / "store") as store:
        for epoch in range(1, 6):
            store.apply("embedding", epoch, epoch, keys[: FEW // epoch], uniform_deltas(FEW // epoch, epoch))
            store.flush(store.state)
        for late in (3, 1):
            store.begin_flush(store.state)
            store.apply("embedding", 5, late, keys[100:300], uniform_deltas(200, 9))
            store._tables["embedding"].let_go(2)
        store.withdraw([EpochRange(3, 3)])
        store.undo(EpochRange(5, 5))
        store.apply("embedding", 6, 6, keys[-9:], uniform_deltas(9))  # where entries of epoch 5 stood
        store.flush(store.state)
        expected = [store.checksum("embedding", state) for state in (1, 2, 4)]
    assert check_folder(tmp_path / "store").tables[0].journals == {1: FEW, 2: FEW // 2, 4: FEW // 4, 6: 9}
    with opened(tmp_path / "store") as store:
        assert [store.checksum("embedding", state) for state in (1, 2, 4)] == expected
