"""One process a data folder: a lock file that names its holder, free again the moment that process ends."""

import os
from contextlib import suppress
from pathlib import Path

from ekko.schemas.errors import StoreLocked
from ekko.storage.disk.data_folder import make_folder

try:
    import fcntl
except ImportError:  # Windows: RocksDB's own lock on each store remains
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Holds `folder` for this process until `release`, or until the process ends, however it ends.

    Args:
        folder: made if it does not exist.
        holder: what others are told, e.g. the replica's name.

    Raises:
        StoreLocked: another process holds it; the message names the path and the holder.
        ConfigurationError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        make_folder(folder, "--data")
        path = folder / "LOCK"
        self._file = path.open("a+", encoding="utf-8")
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            other = self._file.read().strip() or "another process"
            self._file.close()
            raise StoreLocked(
                f"data folder {folder} is held by {other}", hint="stop that store, or give this one its own --data"
            ) from error
        try:
            self._file.truncate(0)
            self._file.write(f"{holder} (process {os.getpid()})\n")
            self._file.flush()
        except OSError:  # the disk is full
            self.release()
            raise

    def release(self) -> None:
        """Let others have the folder."""
        with suppress(OSError):  # of what could not be written; it is closed all the same
            self._file.close()
