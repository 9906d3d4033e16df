"""A folder that a person has named for a process's data, and what the folders in it are called."""

import os
import time
from pathlib import Path

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import ConfigurationError


def folder_name(model: ModelDeclaration, region: RegionDeclaration) -> str:
    """The name of a store's folder; with incarnations, so that a name used again is never taken for the old one."""
    return f"{model.name}@{model.incarnation}.{region.name}@{region.incarnation}"


def make_folder(folder: Path, option: str) -> None:
    """Make `folder` and its parents, if they are not there.

    Args:
        option: with which it was named, e.g. `--data`; the hint says so.

    Raises:
        ConfigurationError: it cannot be made, is no folder, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, option, error.strerror or str(error)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unusable(folder, option, "it cannot be written to")


def _unusable(folder: Path, option: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{folder} cannot be used as a data folder: {reason}", hint=f"name a folder that can be written with {option}"
    )


def move_aside(folder: Path) -> Path:
    """Give a folder that is to be replaced another name; nothing is ever deleted. Returns the new path."""
    aside = folder.with_name(f"replaced-{folder.name}-{time.time_ns() // 1_000_000}")
    folder.rename(aside)
    return aside
