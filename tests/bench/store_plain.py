"""The floor: what a team writes first, well tuned. Batched get, add, WriteBatch, on a database of its own.

Everything is in its favour: rows loaded in order as one sorted run, 4 KiB blocks and a Bloom filter, a block cache as
large as the table and warm, large memtables, keys of a batch in ascending order, no sync of its log.
"""

import struct
import time
from collections import deque
from itertools import islice
from pathlib import Path

import numpy as np
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    SstFileWriter,
    WriteBatch,
)

from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from tests.bench.store_work import Shape, blocks, cycle, key_of

_LOADED_AT_ONCE = 100_000
_BLOCKS = 60
"""Of 10,000 keys; all are in the cache after the first pass."""


def plain_loop(folder: Path, shape: Shape, seconds: float) -> float:
    """Rows/s of read, add, write, with the write-ahead log and no sync, once the cache is warm."""
    folder.mkdir()
    options = _options(shape)
    database = Rdict(str(folder / "database"), options)
    _load(database, folder / "rows.sst", options, shape)
    asked = blocks(shape, _BLOCKS, seed=9)
    for block in asked:
        _update(database, *block)
    made, rows, begun = cycle(asked), 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        rows += _update(database, *next(made))
    rate = rows / (time.perf_counter() - begun)
    database.close()
    return rate


def scan_rate(database: Path, rows: int = 2_000_000) -> float:
    """Rows/s that iterating over a store's rows gives, with nothing done to them: the bound of any recovery."""
    opened = Rdict(str(database), Options(raw_mode=True))
    begun = time.perf_counter()
    count = sum(1 for _ in islice(opened.items(from_key=b"R"), rows))
    rate = count / (time.perf_counter() - begun)
    opened.close()
    return rate


def _options(shape: Shape) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(Cache(int(shape.rows * shape.dim * 4 * 1.3)))
    table.set_block_size(4 << 10)
    table.set_bloom_filter(10, block_based=False)
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.none())
    options.set_max_background_jobs(2)
    options.set_write_buffer_size(256 << 20)
    options.set_max_write_buffer_number(4)
    return options


def _load(database: Rdict, file: Path, options: Options, shape: Shape) -> None:
    writer = SstFileWriter(options)
    writer.open(str(file))
    keys = np.sort(key_of(np.arange(shape.rows)))
    value = np.ones(shape.dim, np.int32).tobytes()
    for start in range(0, len(keys), _LOADED_AT_ONCE):
        names = _names(keys[start : start + _LOADED_AT_ONCE])
        deque(map(writer.__setitem__, names, [value] * len(names)), maxlen=0)
    writer.finish()
    moved = IngestExternalFileOptions()
    moved.set_move_files(True)
    database.ingest_external_file([str(file)], moved)
    for table in file.parent.glob("database/*.sst"):  # the writer asks the system to forget what it has written
        with table.open("rb") as data:
            while data.read(64 << 20):
                pass


def _update(database: Rdict, keys: UInt64s, deltas: Int32s) -> int:
    order = np.argsort(keys)
    names = _names(keys[order])
    values = np.frombuffer(b"".join(database.get(names)), dtype=np.int32).reshape(deltas.shape)  # type: ignore[arg-type]
    new = values + deltas[order]
    batch = WriteBatch(raw_mode=True)
    deque(map(batch.put, names, struct.unpack(f"{new.shape[1] * 4}s" * len(new), new.data)), maxlen=0)
    database.write(batch)
    return len(keys)


def _names(keys: UInt64s) -> list[bytes]:
    return list(struct.unpack("8s" * len(keys), keys.astype(">u8").tobytes()))
