"""One process a folder, named to whom comes second, free when it ends."""

import os
from pathlib import Path

import pytest

from ekko.schemas.errors import StoreLocked
from ekko.storage.disk.folder_lock import FolderLock


def test_the_second_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    first = FolderLock(folder, "replica a")
    with pytest.raises(StoreLocked, match=rf"{folder} is held by replica a \(process {os.getpid()}\)") as caught:
        FolderLock(folder, "replica b")
    assert "--data" in caught.value.hint
    first.release()
    second = FolderLock(folder, "replica b")
    with pytest.raises(StoreLocked, match="replica b"):
        FolderLock(folder, "replica c")
    second.release()
