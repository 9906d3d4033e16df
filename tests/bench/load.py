"""A trainer's load in a process of its own: `python -m tests.bench.load BOOTSTRAP MODEL`.

Zipf keys; gradients are normal times a log-normal scale a row, AdaGrad-sized. Lines on standard input: `rate ROWS_PER_S
SECONDS ROWS_A_CALL` (rate 0: as fast as it goes) publishes and answers with the rows acknowledged; the end of input
ends it.
"""

import sys
import time

import numpy as np

from ekko.streams.publisher import Publisher

KEYS, ZIPF, DIM = 50_000, 1.05, 64
TABLE = "embedding"


class Gradients:
    """Batches of keys and deltas, made beforehand: making them must not cost more than publishing."""

    def __init__(self, rows: int, count: int = 32) -> None:
        random = np.random.default_rng(rows)
        weights = 1.0 / np.arange(1, KEYS + 1) ** ZIPF
        cumulative = np.cumsum(weights / weights.sum())
        self.batches = []
        for _ in range(count):
            keys = np.searchsorted(cumulative, random.random(rows)).astype(np.uint64)
            scale = 1e-3 * np.exp(random.normal(size=(rows, 1)))
            self.batches.append((keys, (random.normal(size=(rows, DIM)) * scale).astype(np.float32)))


def publish(publisher: Publisher, rate: float, seconds: float, gradients: Gradients) -> int:
    """Publish at a steady pace; returns the rows given."""
    rows_a_call = len(gradients.batches[0][0])
    began, given = time.monotonic(), 0
    while time.monotonic() < began + seconds:
        keys, deltas = gradients.batches[given // rows_a_call % len(gradients.batches)]
        publisher.publish(TABLE, keys, deltas, timeout_s=60)
        given += rows_a_call
        if rate:
            time.sleep(max(0.0, began + given / rate - time.monotonic()))
    publisher.flush(60)
    return given


def main() -> None:
    """Follow the orders."""
    bootstrap, model = sys.argv[1:]
    made: dict[int, Gradients] = {}
    with Publisher(model, bootstrap=bootstrap, trainer="bench") as publisher:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            _, rate, seconds, rows = line.split()
            gradients = made.setdefault(int(rows), Gradients(int(rows)))
            began = time.monotonic()
            given = publish(publisher, float(rate), float(seconds), gradients)
            sys.stdout.write(f"{given} {time.monotonic() - began}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
