"""What to tell when the disk fails a store."""

import errno
import os
from pathlib import Path

from ekko.schemas.errors import StoreCorrupt, StoreUnwritable

START_ANEW = "move the folder away: the replica then fills an empty one from a peer or the lanes"


_UNWRITABLE = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)))


def unopened(path: Path, reason: object) -> StoreCorrupt | StoreUnwritable:
    """What to tell when RocksDB does not open: it writes to do so, and nothing may be wrong with what is there."""
    full = any(words in str(reason) for words in _UNWRITABLE)
    return unwritable(path, reason) if full else corrupt(path, reason)


def corrupt(path: Path, reason: object) -> StoreCorrupt:
    """What to tell when a check of the folder fails."""
    return StoreCorrupt(
        f"store {path}: {reason}",
        hint=START_ANEW,
    )


def unwritable(path: Path, reason: object) -> StoreUnwritable:
    """What to tell when the folder cannot be written."""
    return StoreUnwritable(
        f"store {path} cannot be written: {reason}",
        hint="free disk space or make the folder writable; what was readable stays so, the next flush tries again",
    )
