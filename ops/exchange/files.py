"""Which format a file has: by its ending."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

from ekko.ops.exchange import npz, parquet, safetensors
from ekko.ops.exchange.spool import Spool
from ekko.ops.exchange.tables import Names, Origin, TableFile
from ekko.schemas.errors import BadInput, ConfigurationError

Format = Literal["npz", "safetensors", "parquet"]

_READERS: dict[str, Callable[[Path, Names], TableFile]] = {
    "npz": npz.read,
    "safetensors": safetensors.read,
    "parquet": parquet.ParquetFile,
}
_WRITERS: dict[str, Callable[[Path, Spool, Origin], None]] = {
    "npz": npz.write,
    "safetensors": safetensors.write,
    "parquet": parquet.write,
}


def open_table(path: Path, names: Names) -> TableFile:
    """Open a file to import.

    Raises:
        BadInput: it is not there, of an unknown ending, or holds no table.
        ConfigurationError: its format needs an extra that is not installed.
    """
    reader = _READERS.get(path.suffix.removeprefix("."))
    if reader is None:
        raise BadInput(f"{path}: what format is that?", hint=f"files end in {', '.join('.' + end for end in _READERS)}")
    try:
        return reader(path, names)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def write_table(path: Path, spool: Spool, origin: Origin) -> None:
    """Write an export; the file is there whole or not at all."""
    draft = path.with_name(f"{path.name}.partial")
    try:
        _WRITERS[path.suffix.removeprefix(".")](draft, spool, origin)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def as_format(text: str) -> Format:
    """A format by its name; raises ConfigurationError."""
    for known in get_args(Format):
        if known == text:
            return cast("Format", known)
    raise ConfigurationError(f"format {text!r} is unknown", hint=f"one of {', '.join(get_args(Format))}")
