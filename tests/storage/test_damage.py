"""Bytes flip, files end early or vanish: a store says so, or the damage does no harm; never a wrong row."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ekko.schemas.errors import StoreCorrupt
from ekko.storage.disk.checking import check_folder
from tests.storage.stores import LARGE, content, open_store, opened, uniform_deltas


def files(folder: Path, pattern: str) -> list[Path]:
    found = sorted((folder / "rocksdb").glob(pattern))
    assert found
    return found


def content_or_error(folder: Path) -> list[tuple[int, int, int]] | StoreCorrupt:
    try:
        return content(folder)
    except StoreCorrupt as error:
        return error


def test_any_flipped_byte_is_noticed_or_harmless(folder: Path, tmp_path: Path) -> None:
    expected = content(folder)
    random = np.random.default_rng(0)
    noticed = 0
    for file in [*files(folder, "*.sst"), *files(folder, "MANIFEST-*"), *files(folder, "CURRENT")]:
        for place in random.integers(0, file.stat().st_size, 6).tolist():
            shutil.copytree(folder, tmp_path / "hurt")
            hurt = tmp_path / "hurt" / "rocksdb" / file.name
            data = bytearray(hurt.read_bytes())
            data[place] ^= 0x40
            hurt.write_bytes(data)
            found = content_or_error(tmp_path / "hurt")
            noticed += isinstance(found, StoreCorrupt)
            assert found == expected or (isinstance(found, StoreCorrupt) and "hurt" in found.message and found.hint)
            shutil.rmtree(tmp_path / "hurt")
    assert noticed > 20


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store whose journals are large enough to have files of their own; a late delta has changed one."""
    folder = tmp_path_factory.mktemp("large") / "store"
    keys = np.arange(LARGE, dtype=np.uint64)
    with opened(folder) as store:
        for epoch in range(3):
            store.apply("embedding", epoch, epoch, keys, uniform_deltas(LARGE, epoch + 1))
            store.flush(store.state)
        store.apply("embedding", 3, 1, keys[: LARGE // 2], uniform_deltas(LARGE // 2, 50))
        store.flush(store.state)
    return folder


def harmed(folder: Path, target: Path, file: Path, harm: Callable[[Path], None]) -> list[tuple[int, int, int]] | None:
    """What a copy of the store tells once one of its files was harmed; None if it says that it is corrupt."""
    shutil.copytree(folder, target)
    harm(target / file.relative_to(folder))
    found = content_or_error(target)
    if isinstance(found, StoreCorrupt):
        assert str(target) in found.message
        assert found.hint
        with pytest.raises(StoreCorrupt):
            check_folder(target)
    shutil.rmtree(target)
    return None if isinstance(found, StoreCorrupt) else found


def open_files(folder: Path) -> list[str]:
    """Files under a folder that this process holds open."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [str(link.readlink()) for link in links if link.exists() and str(link.readlink()).startswith(str(folder))]


def test_a_store_that_is_found_corrupt_is_closed_at_once(large_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(large_folder, tmp_path / "hurt")
    for file in files(tmp_path / "hurt", "*.sst"):
        cut = bytearray(file.read_bytes())
        cut[len(cut) // 2] ^= 1
        file.write_bytes(cut)
    for reading in (content, check_folder):
        with pytest.raises(StoreCorrupt) as caught:
            reading(tmp_path / "hurt")
        assert "block checksum mismatch" in caught.value.message
        assert not open_files(tmp_path / "hurt"), "the error, still at hand, must not keep the database open"


def test_a_flipped_byte_in_any_file_of_large_journals_is_noticed_or_harmless(
    large_folder: Path, tmp_path: Path
) -> None:
    expected = content(large_folder)
    random = np.random.default_rng(1)
    noticed = {}
    for file in sorted(path for path in large_folder.glob("**/*") if path.is_file() and path.stat().st_size):
        for place in random.integers(0, file.stat().st_size, 3).tolist():

            def flip(path: Path, place: int = place) -> None:
                data = bytearray(path.read_bytes())
                data[place] ^= 0x10
                path.write_bytes(data)

            found = harmed(large_folder, tmp_path / "hurt", file, flip)
            assert found in (None, expected), file
            noticed[file.suffix] = noticed.get(file.suffix, 0) + (found is None)
    assert noticed[".sst"] > 10


def test_every_file_of_rows_and_journals_is_missed(large_folder: Path, tmp_path: Path) -> None:
    tables = files(large_folder, "*.sst")
    assert len(tables) >= 6, "journals have files of their own"
    for file in tables:
        for harm in (cut_in_half, Path.unlink):
            assert harmed(large_folder, tmp_path / "hurt", file, harm) is None, file


def cut_in_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("harm", [cut_in_half, Path.unlink], ids=["truncated", "missing"])
@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT"])
def test_files_that_end_early_or_are_gone(folder: Path, pattern: str, harm: Callable[[Path], None]) -> None:
    harm(files(folder, pattern)[0])
    with pytest.raises(StoreCorrupt) as caught:
        open_store(folder)
    assert str(folder) in caught.value.message
    with pytest.raises(StoreCorrupt):
        check_folder(folder)
