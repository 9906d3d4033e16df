"""A store on a file system that fills up, or becomes read-only: told with a remedy, nothing lost, and it goes on.

They need the right to mount; `test_disk` tells the same everywhere, by limits on files and a folder that takes none.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.errors import ConfigurationError, StoreUnwritable
from ekko.storage.disk.checking import check_folder
from ekko.storage.store import Store
from tests.storage.stores import LARGE, open_store, opened, uniform_deltas
from tests.storage.volumes import Volume

FEW = 1_500
KIB = 1 << 10

pytestmark = pytest.mark.chaos


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path / "volume")
    yield volume
    volume.unmount()


def sums(store: Store) -> list[int]:
    return [store.checksum("embedding", state) for state in range(store.bound, store.bound + 4)]


def failure_of(work: Callable[[], None]) -> StoreUnwritable | None:
    try:
        work()
    except StoreUnwritable as error:
        return error
    return None


@pytest.mark.parametrize(
    ("rows", "left"),
    [(FEW, (0, 4, 8, 16, 32, 64, 100, 128, 256, 512, 1024)), (LARGE, (0, 64, 2_000, 6_000))],
    ids=["written here", "written by the helper"],
)
def test_a_disk_that_fills_up_is_told_and_gone_on_with_once_there_is_room(
    volume: Volume, rows: int, left: tuple[int, ...]
) -> None:
    """Whatever little is left, so that each of the writes of a commit is the one that fails."""
    folder = volume.path / "store"
    refused = 0
    with opened(folder) as store:
        store.apply("embedding", 0, 0, np.arange(rows, dtype=np.uint64), uniform_deltas(rows))
        store.flush(store.state)  # the helper runs from here on
        for epoch, free in enumerate(left, start=1):
            store.raise_bound(epoch - 2)  # older journals are to be erased, too
            store.apply("embedding", epoch, epoch, np.arange(rows, dtype=np.uint64), uniform_deltas(rows, epoch))
            with volume.full(free * KIB):
                before = sums(store)
                error = failure_of(lambda: store.flush(store.state))
                assert error is None or (str(folder) in error.message and "free disk space" in (error.hint or ""))
                refused += error is not None
                assert sums(store) == before
            store.flush(store.state)
            assert sums(store) == before
    assert refused >= 3
    assert check_folder(folder).tables[0].rows == rows
    with opened(folder) as store:
        assert sums(store) == before


def test_a_disk_that_becomes_read_only_is_told_and_gone_on_with_once_it_is_not(volume: Volume) -> None:
    folder = volume.path / "store"
    keys = np.arange(FEW, dtype=np.uint64)
    with opened(folder) as store:
        store.apply("embedding", 0, 0, keys, uniform_deltas(FEW))
        store.flush(store.state)
        store.apply("embedding", 1, 1, keys, uniform_deltas(FEW))
        with volume.read_only():
            for _ in range(2):
                with pytest.raises(StoreUnwritable, match="Read-only file system") as caught:
                    store.flush(store.state)
                assert str(folder) in caught.value.message
                assert "make the folder writable" in (caught.value.hint or "")
            store.apply("embedding", 2, 2, keys, uniform_deltas(FEW))
            assert (store.lookup("embedding", keys)[0] == 3).all()
        store.flush(store.state)
        expected = sums(store)
    with opened(folder) as store:
        assert sums(store) == expected


def test_a_start_on_a_read_only_or_full_disk_says_so_and_changes_nothing(volume: Volume) -> None:
    folder = volume.path / "store"
    with opened(folder) as store:
        store.apply("embedding", 0, 0, np.arange(FEW, dtype=np.uint64), uniform_deltas(FEW))
        store.flush(store.state)
        expected = sums(store)
    for harm in (volume.read_only(), volume.full(0)):
        with harm:
            with pytest.raises((ConfigurationError, StoreUnwritable)) as caught:
                open_store(folder).close()
            assert str(folder) in caught.value.message
            assert caught.value.hint
        with opened(folder) as store:
            assert sums(store) == expected
