"""A factorisation machine that learns online and gives its changes away as deltas.

Rendle, "Factorization Machines", ICDM 2010, with logistic loss and AdaGrad (Duchi, Hazan and Singer, JMLR 2011). A row
is one feature's parameters: column 0 its linear weight w, the others its factors v. With feature values x the logit is

    sum_i w_i x_i  +  1/2 sum_f [ (sum_i v_if x_i)^2 - sum_i v_if^2 x_i^2 ]

The model holds no rows: whoever calls it brings them, from a store, from a trainer's own copy, or frozen ones.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.keyed import KeyedRows


@dataclass(frozen=True, slots=True)
class Batch:
    """N interactions and the U distinct keys they use.

    Attributes:
        keys: ``uint64[U]``, sorted.
        index: ``intp[N, F]``, the position in ``keys`` of each feature.
        values: ``float32[N, F]``, feature values; 0 is padding.
        labels: ``float32[N]``, 0 or 1.
    """

    keys: NDArray[np.uint64]
    index: NDArray[np.intp]
    values: NDArray[np.float32]
    labels: NDArray[np.float32]


def take_batch(interactions: Interactions, start: int, stop: int) -> Batch:
    """Interactions ``start`` to ``stop`` (exclusive) with their distinct keys."""
    keys, index = np.unique(interactions.keys[start:stop], return_inverse=True)
    shape = (-1, interactions.keys.shape[1])
    return Batch(keys, index.reshape(shape), interactions.values[start:stop], interactions.labels[start:stop])


def logits(rows: NDArray[np.float32], batch: Batch) -> NDArray[np.float32]:
    """Log-odds ``float32[N]`` that each is liked, given the rows ``float32[U, 1 + factors]`` of the batch's keys."""
    weighted = rows[batch.index] * batch.values[:, :, None]
    factors = weighted[:, :, 1:]
    pairs = np.square(factors.sum(axis=1)).sum(axis=1) - np.square(factors).sum(axis=(1, 2))
    scores: NDArray[np.float32] = weighted[:, :, 0].sum(axis=1) + np.float32(0.5) * pairs
    return scores


def probabilities(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logistic function of logits, without overflow at either end."""
    chances: NDArray[np.float32] = np.float32(0.5) * (np.float32(1) + np.tanh(scores * np.float32(0.5)))
    return chances


def loss_gradients(rows: NDArray[np.float32], batch: Batch, l2: float) -> NDArray[np.float32]:
    """Gradient ``float32[U, 1 + factors]`` of the summed logistic loss plus ``l2 / 2 * |row|^2`` a use of a row."""
    used = rows[batch.index]
    weighted = used[:, :, 1:] * batch.values[:, :, None]
    errors = probabilities(logits(rows, batch)) - batch.labels
    slopes = np.ones_like(used)
    slopes[:, :, 1:] = weighted.sum(axis=1, keepdims=True) - weighted
    slopes *= (errors[:, None] * batch.values)[:, :, None]
    slopes += used * (np.float32(l2) * (batch.values != 0))[:, :, None]
    return _sum_by_key(slopes.reshape(-1, rows.shape[1]), batch.index.ravel())


def _sum_by_key(slopes: NDArray[np.float32], index: NDArray[np.intp]) -> NDArray[np.float32]:
    """Sum of the slopes of each position; every position from 0 to the largest occurs at least once."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(index.max() + 1))
    sums: NDArray[np.float32] = np.add.reduceat(slopes[order], starts, axis=0)
    return sums


class AdaGrad:
    """Turns gradients into deltas, with one accumulated squared gradient for each value of each key seen so far."""

    def __init__(self, dim: int, linear_rate: float, factor_rate: float) -> None:
        """``dim`` is the width of a row; the rates are the step sizes of column 0 and of the other columns."""
        self._rates = np.full(dim, factor_rate, np.float32)
        self._rates[0] = linear_rate
        self.squares = KeyedRows(dim)

    def step(self, keys: NDArray[np.uint64], gradients: NDArray[np.float32]) -> NDArray[np.float32]:
        """Deltas ``float32[U, dim]`` for gradients of the same shape; ``keys uint64[U]`` are distinct and sorted."""
        new = self.squares.missing(keys)
        self.squares.admit(new, np.zeros((len(new), len(self._rates)), np.float32))
        slots = self.squares.slots(keys)
        squares = self.squares.rows[slots] + np.square(gradients)
        self.squares.rows[slots] = squares
        deltas: NDArray[np.float32] = -self._rates * gradients / np.sqrt(squares + np.float32(1e-8))
        return deltas

    def save(self, path: Path) -> None:
        """Keep the accumulated squares in a file, replaced as a whole."""
        partial = path.with_name(f"{path.name}.new")
        with partial.open("wb") as file:
            np.savez(file, keys=self.squares.keys, squares=self.squares.rows)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Take up what `save` kept; without a file everything starts anew."""
        if path.exists():
            with np.load(path, allow_pickle=False) as file:
                self.squares.clear()
                self.squares.admit(file["keys"], file["squares"])
