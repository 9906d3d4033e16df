"""Work for the store's measurements: keys, blocks of deltas, and the machine's limits taken beside them."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rocksdict import Options, SstFileWriter

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.hashing import UInt64s, splitmix64
from ekko.schemas.quantize import Int32s
from ekko.storage.store import Store

ZIPF = 1.05


@dataclass(frozen=True, slots=True)
class Shape:
    """What is measured: a table of `rows` keys with `dim` values, blocks of `block` distinct keys."""

    rows: int
    dim: int
    block: int
    zipf: bool

    @property
    def name(self) -> str:
        keys = "zipf" if self.zipf else "uniform"
        return f"{self.rows / 1e6:g}M x {self.dim}, N={self.block}, {keys}"


def key_of(rank: np.ndarray) -> UInt64s:  # type: ignore[type-arg]
    """The key of a popularity rank: scattered over all of uint64."""
    return splitmix64(rank.astype(np.uint64))


def blocks(shape: Shape, count: int, seed: int = 0) -> list[tuple[UInt64s, Int32s]]:
    """Blocks of distinct keys, Zipf(1.05) or uniform; all values of a delta are the same, so that torn rows show."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ranks = np.empty(0, dtype=np.int64)
        while len(ranks) < shape.block:
            drawn = random.random(shape.block * 2)
            more = _zipf_ranks(drawn, shape.rows) if shape.zipf else (drawn * shape.rows).astype(np.int64)
            ranks = np.unique(np.concatenate((ranks, more)))
        random.shuffle(ranks)
        values = random.normal(0, 1 << 14, shape.block).astype(np.int32)
        made.append((key_of(ranks[: shape.block]), np.repeat(values[:, None], shape.dim, axis=1)))
    return made


def _zipf_ranks(uniform: np.ndarray, rows: int) -> np.ndarray:  # type: ignore[type-arg]
    """Ranks by inversion of the continuous Zipf distribution on 1..rows."""
    power = 1.0 - ZIPF
    return (((rows**power - 1.0) * uniform + 1.0) ** (1.0 / power)).astype(np.int64) - 1


def filled(folder: Path, shape: Shape, memory_bytes: int) -> Store:
    """A store with every row of the shape in it and on disk, and no journals."""
    model = ModelDeclaration("bench", 1, 1, (TableDeclaration("rows", shape.dim),), incarnation=1)
    store = Store.open(folder, model, [0], region_incarnation=1, memory_bytes=memory_bytes)
    store.raise_bound(1)
    for start in range(0, shape.rows, 100_000):
        ranks = np.arange(start, min(start + 100_000, shape.rows))
        store.apply("rows", 0, 0, key_of(ranks), np.ones((len(ranks), shape.dim), np.int32))
        if start % 500_000 == 0:
            store.begin_flush(store.state)
    store.flush(store.state)
    return store


def cycle(made: list[tuple[UInt64s, Int32s]]) -> Iterator[tuple[UInt64s, Int32s]]:
    """The blocks, over and over."""
    while True:
        yield from made


def percentile(seconds: list[float], share: float) -> float:
    """In milliseconds."""
    return float(np.percentile(seconds, share)) * 1e3 if seconds else float("nan")


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load_1m": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def limits(folder: Path, dim: int) -> dict[str, float]:
    """memcpy, gathering rows, writing a sorted file: what this machine does at best, now."""
    source = np.ones((1 << 18, dim), dtype=np.int32)
    target = np.empty_like(source)
    places = np.random.default_rng(0).permutation(len(source))[:10_000]
    out = np.empty((10_000, dim), dtype=np.int32)
    copied = _best(lambda: np.copyto(target, source))
    gathered = _best(lambda: np.take(source, places, axis=0, mode="clip", out=out))
    return {
        "memcpy_gb_per_s": round(source.nbytes / copied / 1e9, 2),
        "take_rows_per_s": round(10_000 / gathered),
        "sst_rows_per_s": round(100_000 / _best(lambda: _write_file(folder / "limit.sst", dim), 3)),
    }


def _write_file(file: Path, dim: int) -> None:
    file.unlink(missing_ok=True)
    writer = SstFileWriter(Options(raw_mode=True))
    writer.open(str(file))
    value = bytes(4 * dim)
    for number in range(100_000):
        writer[number.to_bytes(8, "big")] = value
    writer.finish()
    file.unlink()


def _best(work: Callable[[], object], times: int = 10) -> float:
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
