"""A trainer's load in a process of its own: `python -m tests.bench.load BOOTSTRAP MODEL`.

Lines on standard input: `LOAD ROWS_PER_S SECONDS ROWS_A_CALL` (rate 0: as fast as it goes) publishes and answers with
the rows given and the seconds it took; the end of input ends it. Loads: `wide`, Zipf keys and normal gradients times a
log-normal scale a row, AdaGrad-sized; `drift`, what the demo's factorisation machine learns from the seeded stream.
"""

import itertools
import sys
import time
from collections.abc import Iterator

import numpy as np

from ekko.ops.demo.learner import Learner
from ekko.ops.demo.model import take_batch
from ekko.ops.demo.synthetic import synthetic_interactions
from ekko.streams.publisher import Publisher

KEYS, ZIPF, DIM = 50_000, 1.05, 64
TABLE = "embedding"


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Keys, deltas, created; made beforehand: making them must not cost more than publishing."""


def wide(rows: int, count: int = 32) -> list[Batch]:
    """Zipf keys, many of them."""
    random = np.random.default_rng(rows)
    weights = 1.0 / np.arange(1, KEYS + 1) ** ZIPF
    cumulative = np.cumsum(weights / weights.sum())
    batches = []
    for _ in range(count):
        keys = np.searchsorted(cumulative, random.random(rows)).astype(np.uint64)
        scale = 1e-3 * np.exp(random.normal(size=(rows, 1)))
        deltas = (random.normal(size=(rows, DIM)) * scale).astype(np.float32)
        batches.append((keys, deltas, np.zeros(rows, np.bool_)))
    return batches


def drift(rows: int) -> list[Batch]:
    """What a factorisation machine of this width learns from the demo's seeded stream, in batches of about `rows`."""
    interactions = synthetic_interactions(7)
    seen: set[int] = set()

    def pull(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.array([int(key) in seen for key in keys])
        seen.update(keys.tolist())
        return np.random.default_rng(int(keys[0] % 2**32)).normal(0.0, 0.01, (len(keys), DIM)).astype(np.float32), found

    learner = Learner(DIM, pull)
    size = max(1, rows // interactions.keys.shape[1])
    steps = [
        learner.learn(take_batch(interactions, start, start + size))
        for start in range(0, min(len(interactions) - size, 60_000), size)
    ]
    return [(step.keys, step.deltas, step.created) for step in steps]


def publish(publisher: Publisher, rate: float, seconds: float, batches: Iterator[Batch]) -> int:
    """Publish at a steady pace; returns the rows given."""
    began, given = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        keys, deltas, created = next(batches)
        publisher.publish(TABLE, keys, deltas, created=created, timeout_s=60)
        given += len(keys)
        if rate:
            time.sleep(max(0.0, began + given / rate - time.monotonic()))
    publisher.flush(60)
    return given


def main() -> None:
    """Follow the orders."""
    bootstrap, model = sys.argv[1:]
    made: dict[tuple[str, int], Iterator[Batch]] = {}
    with Publisher(model, bootstrap=bootstrap, trainer="bench") as publisher:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            name, rate, seconds, rows = line.split()
            if (name, int(rows)) not in made:
                made[name, int(rows)] = itertools.cycle(wide(int(rows)) if name == "wide" else drift(int(rows)))
            began = time.monotonic()
            given = publish(publisher, float(rate), float(seconds), made[name, int(rows)])
            sys.stdout.write(f"{given} {time.monotonic() - began}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
