"""The trainer's side of the model: its own copy of the rows, and the deltas it learns from each batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.keyed import KeyedRows
from ekko.ops.demo.model import AdaGrad, Batch, loss_gradients

LINEAR_RATE = 0.2
FACTOR_RATE = 0.07
L2 = 0.01
"""Chosen by the online AUC on MovieLens 100K in time order, batches of 20 (docs/decisions tells the numbers)."""

Pull = Callable[[NDArray[np.uint64]], tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""Rows ``float32[N, dim]`` and found ``bool[N]`` of keys, from a store."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one batch taught: ``keys uint64[U]``, ``deltas float32[U, dim]``, ``created bool[U]`` for new rows."""

    keys: NDArray[np.uint64]
    deltas: NDArray[np.float32]
    created: NDArray[np.bool_]


class Learner:
    """Learns batch by batch from rows of its own.

    A key's row is pulled when the key is first met; from then on the learner's copy counts, so that a store which is
    behind, or away, never makes it learn from old rows.
    """

    def __init__(self, dim: int, pull: Pull) -> None:
        self.optimizer = AdaGrad(dim, LINEAR_RATE, FACTOR_RATE)
        self._rows = KeyedRows(dim)
        self._pull = pull

    def learn(self, batch: Batch) -> Step:
        """One gradient step on the batch; raises what ``pull`` raises, and then has learnt nothing."""
        new = self._rows.missing(batch.keys)
        created = np.zeros(len(batch.keys), np.bool_)
        if new.size:
            rows, found = self._pull(new)
            self._rows.admit(new, rows)
            created[np.searchsorted(batch.keys, new)] = ~found
        slots = self._rows.slots(batch.keys)
        rows = self._rows.rows[slots]
        deltas = self.optimizer.step(batch.keys, loss_gradients(rows, batch, L2))
        self._rows.rows[slots] = rows + deltas
        return Step(batch.keys, deltas, created)

    def forget(self) -> None:
        """Drop the rows after a rollback: they are pulled again when next needed."""
        self._rows.clear()
