"""How another process finds a store's memory: `reader.json` in the store's folder."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.storage.engine.memory import Column

FILE_NAME = "reader.json"


@dataclass(frozen=True, slots=True)
class SharedTable:
    """A table's segment: descriptor in the store process, and its arrays."""

    name: str
    descriptor: int
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class ReaderHandle:
    """Everything to attach with.

    Attributes:
        process: the store's process id. started: when it began, see `started_at`; both together name no other process.
        board: descriptor of its notice board.
        shards: those that the store owns.
    """

    process: int
    started: int | None
    board: int
    model: ModelDeclaration
    shards: tuple[int, ...]
    tables: tuple[SharedTable, ...]


_JSON = TypeAdapter(ReaderHandle)
_START_TIME = 19
"""Of the fields after the name in /proc/PID/stat (proc(5) counts it as the 22nd)."""


def started_at(process: int) -> int | None:
    """Clock ticks between the system's start and that of a process; None if it is gone, or there is no /proc."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[_START_TIME])


def write_handle(folder: Path, handle: ReaderHandle) -> None:
    """Put the handle where readers look, at once or not at all."""
    draft = folder / f"{FILE_NAME}.new"
    draft.write_bytes(_JSON.dump_json(handle))
    draft.replace(folder / FILE_NAME)


def find_handle(data: Path, model: str) -> ReaderHandle:
    """The handle of the model's store under a data folder.

    Raises:
        ConfigurationError: there is none.
    """
    newest: tuple[float, ReaderHandle] | None = None
    for file in data.glob(f"**/{FILE_NAME}"):
        try:
            handle, written = _JSON.validate_python(json.loads(file.read_bytes())), file.stat().st_mtime
        except (OSError, ValueError, ValidationError):
            continue  # written by another version, or just being replaced
        if handle.model.name == model and (newest is None or written > newest[0]):
            newest = written, handle
    if newest is None:
        raise ConfigurationError(
            f"no store of model {model} has left a handle under {data}",
            hint="give the --data folder of an `ekko store` that runs on this machine, or its host:port",
        )
    return newest[1]
