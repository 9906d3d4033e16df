"""Folders that cannot be: one sentence and what to do, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from ekko.ops.demo.run import empty_folder
from ekko.schemas.errors import ConfigurationError
from ekko.storage.disk.data_folder import make_folder
from ekko.storage.disk.folder_lock import FolderLock


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/ekko"])
def test_a_folder_that_cannot_be_made_is_told_with_its_option(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / name  # an absolute name replaces what stands before it
    with pytest.raises(ConfigurationError, match=r"cannot be used as a data folder") as store:
        FolderLock(folder, "replica a")
    assert "--data" in store.value.hint
    ekko = Path(sys.executable).with_name("ekko")
    broker = subprocess.run(
        [ekko, "broker", "--data", folder], capture_output=True, text=True, timeout=180, check=False
    )
    assert broker.returncode == 1
    assert "cannot be used as a data folder" in broker.stderr.splitlines()[0]
    with pytest.raises(ConfigurationError, match=r"cannot be used as a data folder") as demo:
        empty_folder(folder)
    assert "--folder" in demo.value.hint


def test_a_folder_is_made_with_its_parents_and_may_be_there(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", "--data")
    make_folder(tmp_path / "a" / "b", "--data")
    assert (tmp_path / "a" / "b").is_dir()
