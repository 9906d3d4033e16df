"""A reader in a process of its own: reads until told to stop, and prints how many rows it read, torn ones among them.

Run: python -m tests.storage.reading_process FOLDER KEYS [AS_OF]
"""

import os
import sys
import threading
from pathlib import Path

import numpy as np

from ekko.storage.client.local_store import LocalStore
from ekko.storage.engine import patience

ENOUGH = 2_000


def enough(folder: Path, pid: int) -> Path:
    """A file that is there once this process has read some rows."""
    return folder.with_name(f"{folder.name}-{pid}-has-read-enough")


def main(folder: Path, count: int, as_of: int | None) -> None:
    patience._PATIENCE_S = 60.0  # a writer that is kept waiting is not dead
    store = LocalStore(folder, "ctr")
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    random = np.random.default_rng(0)
    read = torn = changed = 0
    first = None if as_of is None else store.lookup("embedding", np.arange(count, dtype=np.uint64), as_of).rows
    sys.stdout.write("reading\n")
    sys.stdout.flush()
    while not stop.is_set():
        keys = random.integers(0, count, 1000).astype(np.uint64)
        rows = store.lookup("embedding", keys, as_of).rows
        read += len(rows)
        if read == ENOUGH:
            enough(folder, os.getpid()).touch()
        torn += int((rows != rows[:, :1]).any(axis=1).sum())
        changed += 0 if first is None else int((rows != first[keys.astype(np.int64)]).any(axis=1).sum())
    store.close()
    sys.stdout.write(f"{read} {torn} {changed}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
