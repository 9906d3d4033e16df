"""The stream a trainer learns from: interactions in time order, each a row of features and a label."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.features import BIAS, feature_key


@dataclass(frozen=True, slots=True)
class Interactions:
    """N interactions, oldest first, of F features each.

    Attributes:
        origin: one line for people: what data this is.
        notice: terms of use or a warning that must be shown wherever the data is used.
        timestamps: ``int64[N]``, Unix seconds, never falling.
        labels: ``float32[N]``, 1 where the user liked the item, else 0.
        keys: ``uint64[N, F]``, parameter keys.
        values: ``float32[N, F]``, feature values; 0 is padding.
        user_columns: the first of the F columns belong to bias and user, the others to the item.
        dropped: how many records or values were left out, by reason.
    """

    origin: str
    notice: str
    timestamps: NDArray[np.int64]
    labels: NDArray[np.float32]
    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    user_columns: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def with_notice(self, notice: str) -> "Interactions":
        """The same interactions under another notice."""
        return replace(self, notice=notice)

    def save(self, path: Path) -> None:
        """Write all of it to one file, for the other processes of a run."""
        words = json.dumps([self.origin, self.notice, self.user_columns, dict(self.dropped)])
        with path.open("wb") as file:
            np.savez(file, words=words, times=self.timestamps, labels=self.labels, keys=self.keys, values=self.values)

    @staticmethod
    def load(path: Path) -> "Interactions":
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            origin, notice, user_columns, dropped = json.loads(str(file["words"]))
            columns = (file["times"], file["labels"], file["keys"], file["values"])
            return Interactions(origin, notice, *columns, user_columns, dropped)

    def vocabulary(self) -> NDArray[np.uint64]:
        """``uint64[V]``: every key of the stream, sorted."""
        return np.unique(self.keys)


Features = tuple[NDArray[np.uint64], NDArray[np.float32]]
"""Keys and values of many entities, as `encode_features` makes them."""


def join_features(
    users: Features, items: Features, user_rows: NDArray[np.intp], item_rows: NDArray[np.intp]
) -> Features:
    """Feature keys and values of interactions: the bias, then the user's features, then the item's.

    ``user_rows`` and ``item_rows`` name each interaction's row in ``users`` and ``items``.
    """
    bias = np.full((len(user_rows), 1), feature_key(*BIAS), np.uint64)
    keys = np.hstack([bias, users[0][user_rows], items[0][item_rows]])
    values = np.hstack([np.ones(bias.shape, np.float32), users[1][user_rows], items[1][item_rows]])
    return keys, values
