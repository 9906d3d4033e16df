"""How many commits a store has made, noted beside its database."""

import shutil
from pathlib import Path

from ekko.storage.disk.disk_trouble import corrupt

_NAME = "commits"


class CommitCount:
    """A file with one number, which tells whether the database has lost its latest commits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / _NAME

    def read(self) -> int:
        """The number; 0 if there is none, for a power cut may have left the file empty."""
        digits = self._file.read_bytes() if self._file.exists() else b""
        return int(digits) if digits.isdigit() else 0

    def checked(self, commits: int) -> int:
        """`commits`, as the database holds them: it opens at an older one, silently, if its manifest has lost its end.

        Raises:
            StoreCorrupt: more were made.
        """
        made = self.read()
        if commits < made:
            raise corrupt(self._folder, f"{made} commits were made, only {commits} of them are there")
        return commits

    def write(self, commits: int) -> None:
        """Note a number, at once or not at all."""
        draft = self._file.with_name(f"{_NAME}.new")
        draft.write_text(str(commits))
        draft.replace(self._file)

    def copy_to(self, folder: Path) -> None:
        """Note the same beside a copy of the database."""
        shutil.copy2(self._file, folder / _NAME)
