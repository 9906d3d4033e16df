"""The stream a trainer learns from: interactions in time order, each a row of features and a label."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
        dropped: how many records or values were left out, by reason.
    """

    origin: str
    notice: str
    timestamps: NDArray[np.int64]
    labels: NDArray[np.float32]
    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def with_notice(self, notice: str) -> "Interactions":
        """The same interactions under another notice."""
        return replace(self, notice=notice)

    def vocabulary(self) -> NDArray[np.uint64]:
        """``uint64[V]``: every key of the stream, sorted."""
        return np.unique(self.keys)


def join_features(
    users: tuple[NDArray[np.uint64], NDArray[np.float32]],
    items: tuple[NDArray[np.uint64], NDArray[np.float32]],
    user_rows: NDArray[np.intp],
    item_rows: NDArray[np.intp],
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Feature keys and values of interactions: the bias, then the user's features, then the item's.

    ``users`` and ``items`` are (keys, values) as `encode_features` makes them; ``user_rows`` and ``item_rows`` name the
    row of each interaction in them.
    """
    bias = np.full((len(user_rows), 1), feature_key(*BIAS), np.uint64)
    keys = np.hstack([bias, users[0][user_rows], items[0][item_rows]])
    values = np.hstack([np.ones(bias.shape, np.float32), users[1][user_rows], items[1][item_rows]])
    return keys, values
