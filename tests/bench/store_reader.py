"""A reader in a process of its own, through shared memory: 1,000 rows a lookup, for some seconds; prints JSON."""

import json
import sys
import time
from pathlib import Path

from ekko.storage.client.local_store import LocalStore
from tests.bench.store_work import Shape, blocks, percentile


def main(folder: Path, rows: int, seconds: float) -> None:
    store = LocalStore(folder, "bench")
    asked = [keys for keys, _ in blocks(Shape(rows, 1, 1_000, zipf=True), 200, seed=3)]
    sys.stdout.write("reading\n")
    sys.stdout.flush()
    times: list[float] = []
    torn = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        keys = asked[len(times) % len(asked)]
        begun = time.perf_counter()
        answer = store.lookup("rows", keys)
        times.append(time.perf_counter() - begun)
        torn += int((answer.rows != answer.rows[:, :1]).any(axis=1).sum())
    store.close()
    figures = {
        "shared_read_p50_ms": round(percentile(times, 50), 3),
        "shared_read_p99_ms": round(percentile(times, 99), 3),
        "lookups": len(times),
        "torn_rows": torn,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
