"""Folders that come into being at once: made under another name, and renamed when they are whole and on disk."""

import os
from pathlib import Path

PARTIAL = ".partial"


def draft_of(target: Path) -> Path:
    """Where `target` is made; beside it, and of no other's name."""
    return target.with_name(target.name + PARTIAL)


def put_in_place(draft: Path, target: Path) -> None:
    """Rename the folder `draft` to `target` once all that is in it is on disk, so that no crash leaves less of it.

    Raises:
        OSError: no room, or `target` is there and not empty.
    """
    for folder, _, files in os.walk(draft):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))
    draft.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
