"""The floor: what a team writes first. Batched get, add, WriteBatch, on the very database the store left."""

import time
from pathlib import Path

import numpy as np
from rocksdict import Options, Rdict, WriteBatch

from tests.bench.store_work import Shape, blocks, cycle


def plain_loop(folder: Path, shape: Shape, seconds: float) -> float:
    """Rows/s of read, add, write, with the write-ahead log and no sync."""
    options = Options(raw_mode=True)
    options.set_max_background_jobs(2)
    database = Rdict(str(folder / "rocksdb"), options)
    made = cycle(blocks(shape, 100, seed=9))
    rows, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        keys, deltas = next(made)
        names = [b"R\0\0" + int(key).to_bytes(8, "big") for key in np.sort(keys)]
        found = database.get(names)
        assert found is not None
        values = np.frombuffer(b"".join(found), dtype=np.int32).reshape(len(keys), -1).copy()
        values[:, 1:] += deltas
        data, width = values.tobytes(), values.shape[1] * 4
        batch = WriteBatch(raw_mode=True)
        for number, name in enumerate(names):
            batch.put(name, data[number * width : (number + 1) * width])
        database.write(batch)
        rows += len(keys)
    rate = rows / (time.perf_counter() - begun)
    database.close()
    return rate
