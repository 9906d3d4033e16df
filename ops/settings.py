"""Settings of every process: one TOML file, environment variables over it, command line flags over both.

The file is `--config FILE`, else EKKO_CONFIG, else `ekko.toml` in the working folder if there is one:

    bootstrap = "kafka-1:9092,kafka-2:9092"

    [kafka]                           # handed to librdkafka as it stands
    security.protocol = "SASL_SSL"

    [region.east]
    bootstrap = "kafka-east:9092"     # the central cluster if left out
    bandwidth_bytes_per_s = 5_000_000

    [region.east.kafka]               # with a cluster of its own it inherits nothing from [kafka]
    security.protocol = "SSL"
    ssl.ca.location = "/etc/ssl/east.pem"

As environment variables: EKKO_BOOTSTRAP, EKKO_DATA, EKKO_REGION__EAST__BOOTSTRAP.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from ekko.schemas.errors import ConfigurationError

DEFAULT_FILE = Path("ekko.toml")


def _flatten(value: object) -> object:
    """Turn the nested tables that TOML makes of dotted keys into librdkafka's names again, and values to strings."""
    if not isinstance(value, Mapping):
        return value
    flat: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= {f"{key}.{name}": text for name, text in dict(_flatten(inner)).items()}  # type: ignore[call-overload]
        else:
            flat[key] = str(inner).lower() if isinstance(inner, bool) else str(inner)
    return flat


KafkaSettings = Annotated[dict[str, str], BeforeValidator(_flatten)]


@dataclass(frozen=True)
class ClusterAddress:
    """How to reach a cluster: `host:port,...` and librdkafka settings."""

    bootstrap: str
    kafka: Mapping[str, str]


class RegionSettings(BaseModel):
    """What differs from region to region."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap: str | None = None
    kafka: KafkaSettings = Field(default_factory=dict)
    bandwidth_bytes_per_s: float | None = Field(default=None, gt=0)
    bulk_max_age_s: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    express_percentile: float = Field(default=99.0, ge=0, le=100)
    score: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")


class Settings(BaseSettings):
    """All settings, with the defaults of a machine on which everything runs."""

    model_config = SettingsConfigDict(env_prefix="EKKO_", env_nested_delimiter="__", extra="forbid", frozen=True)

    bootstrap: str = "127.0.0.1:9092"
    data: Path = Path("ekko-data")
    kafka: KafkaSettings = Field(default_factory=dict)
    region: dict[str, RegionSettings] = Field(default_factory=dict)
    epoch_interval_s: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    snapshot_every_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env file is read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - nor a folder of secrets
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags first, then the environment, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def central(self) -> ClusterAddress:
        """The central cluster: source topics, catalogue, control."""
        return ClusterAddress(self.bootstrap, self.kafka)

    def regional(self, name: str, declared: str = "") -> ClusterAddress:
        """A region's own cluster: its lanes. The central one unless the region has its own, here or as `declared`.

        What we know of the central cluster, passwords too, is not told to another one.
        """
        region = self.of_region(name)
        own = region.bootstrap or declared
        return ClusterAddress(own, region.kafka) if own else ClusterAddress(self.bootstrap, self.kafka | region.kafka)

    def of_region(self, name: str) -> RegionSettings:
        """The region's settings, or the defaults where the file names none."""
        return self.region.get(name, RegionSettings())


def load(config: Path | None = None, **flags: object) -> Settings:
    """Read all sources.

    Args:
        config: `--config`; None looks for EKKO_CONFIG, then `ekko.toml`.
        flags: values from the command line; None means that the flag was not given.

    Raises:
        ConfigurationError: the file is missing or no TOML, or a setting is unknown or has an impossible value.
    """
    named = config or (Path(os.environ["EKKO_CONFIG"]) if os.environ.get("EKKO_CONFIG") else None)
    if named is not None and not named.is_file():
        raise ConfigurationError(f"no such settings file: {named}", hint="Check --config or EKKO_CONFIG.")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=named or DEFAULT_FILE)

    try:
        return FromFile(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{named or DEFAULT_FILE} is not TOML: {error}", hint="Strings need quotes, and the file is UTF-8."
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{named or DEFAULT_FILE} cannot be read: {error.strerror}", hint="Check --config or EKKO_CONFIG."
        ) from error
    except (ValidationError, SettingsError) as error:
        raise ConfigurationError(f"settings: {_explain(error)}", hint=f"Read {_sources(named)}.") from error


def _explain(error: ValidationError | SettingsError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())


def _sources(named: Path | None) -> str:
    file = named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    return f"{file}, the flags and the EKKO_* variables" if file else "the flags and the EKKO_* variables"
