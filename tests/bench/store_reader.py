"""A reader in a process of its own, through shared memory: 1,000 rows a lookup, for some seconds; prints JSON.

Lookups of now and of the pinned state take turns, so that whatever else the machine does is in both.
"""

import json
import sys
import time
from pathlib import Path

from ekko.storage.client.local_store import LocalStore
from tests.bench.store_work import Shape, blocks, percentile


def main(folder: Path, rows: int, seconds: float, pinned: int) -> None:
    store = LocalStore(folder, "bench")
    asked = [keys for keys, _ in blocks(Shape(rows, 1, 1_000, zipf=True), 200, seed=3)]
    sys.stdout.write("reading\n")
    sys.stdout.flush()
    times: dict[int | None, list[float]] = {None: [], pinned: []}
    torn = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        keys = asked[len(times[None]) % len(asked)]
        for state, taken in times.items():
            begun = time.perf_counter()
            answer = store.lookup("rows", keys, state)
            taken.append(time.perf_counter() - begun)
            torn += int((answer.rows != answer.rows[:, :1]).any(axis=1).sum())
    store.close()
    figures = {
        "shared_read_p50_ms": round(percentile(times[None], 50), 3),
        "shared_read_p99_ms": round(percentile(times[None], 99), 3),
        "pinned_read_p50_ms": round(percentile(times[pinned], 50), 3),
        "pinned_read_p99_ms": round(percentile(times[pinned], 99), 3),
        "lookups": len(times[None]) + len(times[pinned]),
        "torn_rows": torn,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
