"""A trainer's load in a process of its own: `python -m tests.bench.load BOOTSTRAP MODEL`.

Lines on standard input: `LOAD ROWS_PER_S SECONDS ROWS_A_CALL` (rate 0: as fast as it goes) publishes and answers with
the rows given and the seconds it took; the end of input ends it. Loads: `wide`, Zipf keys and normal gradients times a
log-normal scale a row, AdaGrad-sized; `drift`, what the demo's factorisation machine learns from the seeded stream.
"""

import itertools
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ekko.ops.demo.learner import Learner
from ekko.ops.demo.model import Batch as LearnerBatch
from ekko.ops.demo.model import take_batch
from ekko.ops.demo.synthetic import synthetic_interactions
from ekko.streams.publisher import Publisher

KEYS, ZIPF, DIM = 50_000, 1.05, 64
TABLE = "embedding"


Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Keys, deltas, created; made beforehand: making them must not cost more than publishing."""


def wide(rows: int) -> list[Batch]:
    """Zipf keys, many of them: some hundred thousand updates before they come again."""
    random = np.random.default_rng(rows)
    weights = 1.0 / np.arange(1, KEYS + 1) ** ZIPF
    cumulative = np.cumsum(weights / weights.sum())
    batches = []
    for _ in range(max(32, 256_000 // rows)):
        keys = np.searchsorted(cumulative, random.random(rows)).astype(np.uint64)
        scale = 1e-3 * np.exp(random.normal(size=(rows, 1)))
        deltas = (random.normal(size=(rows, DIM)) * scale).astype(np.float32)
        batches.append((keys, deltas, np.zeros(rows, np.bool_)))
    return batches


class Drift(NamedTuple):
    """What a factorisation machine learns from the demo's seeded stream: a step a batch.

    `initial` are the rows from which it began, float32[K, dim] of the sorted keys uint64[K].
    """

    batches: list[LearnerBatch]
    steps: list[Batch]
    keys: np.ndarray
    initial: np.ndarray


def drift(rows: int) -> Drift:
    """The stream learnt in batches of about `rows` keys' uses."""
    interactions = synthetic_interactions(7)
    first: dict[int, np.ndarray] = {}

    def pull(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.array([int(key) in first for key in keys])
        pulled = np.random.default_rng(int(keys[0] % 2**32)).normal(0.0, 0.01, (len(keys), DIM)).astype(np.float32)
        first.update(zip(keys.tolist(), pulled, strict=True))
        return pulled, found

    learner = Learner(DIM, pull)
    size = max(1, rows // interactions.keys.shape[1])
    starts = range(0, len(interactions) - size, size)
    batches = [take_batch(interactions, start, start + size) for start in starts]
    learnt = [learner.learn(batch) for batch in batches]
    steps = [(step.keys, step.deltas, step.created) for step in learnt]
    keys = np.array(sorted(first), np.uint64)
    return Drift(batches, steps, keys, np.stack([first[key] for key in keys.tolist()]))


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
                made[name, int(rows)] = itertools.cycle(wide(int(rows)) if name == "wide" else drift(int(rows)).steps)
            began = time.monotonic()
            given = publish(publisher, float(rate), float(seconds), made[name, int(rows)])
            sys.stdout.write(f"{given} {time.monotonic() - began}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
