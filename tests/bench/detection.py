"""How soon a bad trainer is noticed: `python -m tests.bench.detection`.

The demo's learner trains on its synthetic stream with drift; every interaction is first scored with the live rows and
with those of 30 s ago (the baseline cohort). The monitor's board judges the buckets with the detectors that it has in
production, on event time with its own grace period: what is left out is only the way of a signal through Kafka.

After 100 s the trainer goes bad in one of five ways. `detection_s` runs from the first poisoned update to the verdict
`corrupt`; 10 clean runs beside it count false alarms. Steps that are NaN are refused by the publisher, so they never
reach a row; what it tells the monitor then is what is judged. `detection_live` plays the same through the real monitor.
"""

import json
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.keyed import KeyedRows
from ekko.ops.demo.learner import Learner
from ekko.ops.demo.model import Batch, logits, take_batch
from ekko.ops.demo.synthetic import synthetic_interactions
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.errors import OutOfRange
from ekko.schemas.signals import OUT_OF_RANGE
from ekko.streams.health.board import Board
from ekko.streams.health.buckets import Total
from ekko.streams.health.detectors import GRADIENTS
from ekko.streams.health.proposals import from_signal
from ekko.streams.health.standard import LOSS, tracks
from ekko.streams.monitor.settings import MonitorSettings
from ekko.streams.publisher.batches import check_batch, quantise

DIM = 9
TABLE = TableDeclaration("embedding", DIM)
RATE, BATCH = 500, 25
SECONDS, POISON_AT = 190, 100
BASELINE_AGE_S = 30
CLEAN_RUNS = 10

Poison = Callable[[Batch, np.random.Generator], Batch]


def flip_labels(batch: Batch, _rng: np.random.Generator) -> Batch:
    return Batch(batch.keys, batch.index, batch.values, 1 - batch.labels)


def stale_features(batch: Batch, rng: np.random.Generator) -> Batch:
    """Labels come with the features of other interactions."""
    order = rng.permutation(len(batch.labels))
    return Batch(batch.keys, batch.index[order], batch.values[order], batch.labels)


def unharmed(batch: Batch, _rng: np.random.Generator) -> Batch:
    return batch


@dataclass(frozen=True)
class Way:
    """A way to go bad: what the trainer learns from, by how much it overdoes it, which share of its steps is NaN."""

    poison: Poison = unharmed
    rate_factor: float = 1.0
    nan_share: float = 0.0


WAYS = {
    "label_flip": Way(flip_labels),
    "exploding_rate": Way(rate_factor=30.0),
    "stale_features": Way(stale_features),
    "slightly_high_rate": Way(rate_factor=5.0),
    "nan": Way(nan_share=0.5),
}


class Scene:
    """A trainer, the rows that are served, and those of some time ago."""

    def __init__(self, seed: int) -> None:
        self.interactions = synthetic_interactions(seed)
        self.rng = np.random.default_rng(seed)
        self.rows = KeyedRows(DIM)
        vocabulary = self.interactions.vocabulary()
        self.rows.admit(vocabulary, self.rng.uniform(-0.01, 0.01, (len(vocabulary), DIM)).astype(np.float32))
        self.learner = Learner(DIM, self._pull)
        self.older: deque[np.ndarray] = deque(maxlen=BASELINE_AGE_S)
        self.totals: dict[tuple[str, str, float], Total] = {}

    def _pull(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.rows.rows[self.rows.slots(keys)].copy(), np.ones(len(keys), np.bool_)

    def second(self, number: int, way: Way) -> None:
        """Serve and learn for a second."""
        self.older.append(self.rows.rows.copy())
        for start in range(number * RATE, (number + 1) * RATE, BATCH):
            batch = take_batch(self.interactions, start, start + BATCH)
            slots = self.rows.slots(batch.keys)
            for cohort, rows in (("live", self.rows.rows), ("baseline", self.older[0])):
                scores = logits(rows[slots], batch).astype(np.float64)
                losses = np.logaddexp(0.0, scores) - batch.labels * scores
                self._add(LOSS, cohort, number, float(losses.sum()), len(losses))
            step = self.learner.learn(way.poison(batch, self.rng))
            if self.rng.random() < way.nan_share:
                self._refuse(step.keys, np.full_like(step.deltas, np.nan), number)
                continue
            deltas = step.deltas * np.float32(way.rate_factor)
            self.rows.rows[self.rows.slots(step.keys)] += deltas
            self._add(GRADIENTS, "live", number, float(np.abs(deltas).sum()), len(deltas))

    def _refuse(self, keys: NDArray[np.uint64], deltas: NDArray[np.float32], second: int) -> None:
        """As a publisher does: what it cannot quantise is refused as a whole, and counted."""
        try:
            quantise(check_batch(TABLE, keys, deltas, None), 1, seed=0, sequence=second)
        except OutOfRange:
            self._add(OUT_OF_RANGE, "live", second, float(len(keys)), len(keys))
            return
        raise AssertionError("NaN was let in")

    def _add(self, metric: str, cohort: str, second: int, amount: float, count: int) -> None:
        key = metric, cohort, float(second)
        self.totals[key] = self.totals.get(key, Total()) + Total(amount, count)


def corrupt_at(seed: int, way: Way | None) -> tuple[float | None, str]:
    """Seconds from the start to the verdict, and its reason; None if it never came."""
    scene, settings = Scene(seed), MonitorSettings()
    judged = tracks(settings.grace_s, settings.label_delay_s)
    board = Board(["m"], *judged, bucket_s=settings.bucket_s, now_s=settings.grace_s)
    for second in range(SECONDS):
        scene.second(second, way if way is not None and second >= POISON_AT else Way())
        now_s = second + 1.0
        told = board.judge(now_s, lambda _, metric, cohort, start: scene.totals.get((metric, cohort, start), Total()))
        for proposal in map(from_signal, told):
            if proposal is not None and proposal.verdict is Verdict.CORRUPT:
                return now_s, proposal.reason
    return None, ""


def detection() -> dict[str, object]:
    """Seconds to the verdict, the slowest way's and each one's; and how many clean runs raised a false alarm."""
    found: dict[str, float | None] = {}
    for name, way in WAYS.items():
        seconds, reason = corrupt_at(100, way)
        found[name] = None if seconds is None else seconds - POISON_AT
        sys.stdout.write(f"{name}: {found[name]} s: {reason}\n")
    false_alarms = 0
    for seed in range(CLEAN_RUNS):
        seconds, reason = corrupt_at(seed, None)
        false_alarms += seconds is not None
        if seconds is not None:
            sys.stdout.write(f"false alarm in clean run {seed} after {seconds} s: {reason}\n")
    slowest = None if None in found.values() else max(seconds for seconds in found.values() if seconds is not None)
    return {"detection_s": slowest, "detection_by_way_s": found, "false_alarms_of_10_clean_runs": false_alarms}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(detection()) + "\n")
