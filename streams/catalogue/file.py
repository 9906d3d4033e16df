"""The declaration file of `ekko model apply`: TOML, checked field by field."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.limits import MAX_ADMISSION, MAX_DIM, MAX_ROWS_A_BLOCK, MAX_SEND_EVERY_S, MAX_SHARDS, NAME_PATTERN
from ekko.streams.catalogue.plan import Declarations

_EXAMPLE = (
    'a file has [[regions]] with name = "east", and [[models]] with name, shards and [[models.tables]] with name, dim'
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = Field(pattern=f"^{NAME_PATTERN}$")


class _Table(_Section):
    dim: int = Field(ge=1, le=MAX_DIM)
    fraction_bits: int = Field(24, ge=0, le=30)
    initializer: Literal["zeros", "uniform"] = "zeros"
    scale: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    seed: int = Field(0, ge=0, lt=2**63)
    send_every_s: float = Field(0.0, ge=0.0, le=MAX_SEND_EVERY_S)
    admission: int = Field(1, ge=1, le=MAX_ADMISSION)


class _Model(_Section):
    shards: int = Field(8, ge=1, le=MAX_SHARDS)
    shard_groups: int = Field(1, ge=1, le=MAX_SHARDS)
    max_rows_a_block: int = Field(MAX_ROWS_A_BLOCK, ge=1, le=MAX_ROWS_A_BLOCK)
    tables: list[_Table] = Field(default_factory=list)


class _Region(_Section):
    bootstrap: str = ""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    regions: list[_Region] = Field(default_factory=list)
    models: list[_Model] = Field(default_factory=list)


def read_declarations(path: Path) -> Declarations:
    """The declarations in the file at `path`.

    Raises:
        ConfigurationError: unreadable, not TOML, or a field is wrong: file, line or field, and the remedy are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error}", hint="give the path of a declaration file"
        ) from error
    return parse_declarations(text, str(path))


def parse_declarations(text: str, name: str) -> Declarations:
    """The declarations in the TOML `text` of the file called `name`; raises as `read_declarations`."""
    try:
        parsed = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is not TOML: {error}", hint=_EXAMPLE) from error
    except ValidationError as error:
        raise ConfigurationError(_describe(error, name), hint=_EXAMPLE) from error
    try:
        regions = tuple(RegionDeclaration(**region.model_dump()) for region in parsed.regions)
        models = tuple(_model(model) for model in parsed.models)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error.message}", hint=error.hint) from error
    for what, names in (("region", [r.name for r in regions]), ("model", [m.name for m in models])):
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            raise ConfigurationError(f"{name}: {what} {', '.join(twice)} stands there twice", hint="keep one of them")
    return Declarations(regions, models)


def _model(model: _Model) -> ModelDeclaration:
    tables = tuple(TableDeclaration(**table.model_dump()) for table in model.tables)
    return ModelDeclaration(model.name, model.shards, model.shard_groups, tables, model.max_rows_a_block)


def _describe(error: ValidationError, name: str) -> str:
    lines = []
    for problem in error.errors():
        value = problem["input"]
        given = "" if isinstance(value, dict | list) else f" (given: {value!r})"
        lines.append(f"{_place(problem['loc'])}: {problem['msg']}{given}")
    return f"{name}: " + "; ".join(lines)


def _place(location: tuple[Any, ...]) -> str:
    """`models[0].tables[1].dim` for ("models", 0, "tables", 1, "dim")."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return place.removeprefix(".") or "file"
