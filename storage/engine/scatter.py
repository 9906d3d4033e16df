"""Writing rows to many places."""

import numpy as np

from ekko.schemas.quantize import Int32s
from ekko.storage.engine.index import Slots


def scatter(target: Int32s, places: Slots, rows: Int32s) -> None:
    """target[places] = rows, with whole rows as items: twice as fast as fancy indexing.

    Args:
        target: int32[capacity, dim]. places: int64[N], distinct. rows: int32[N, dim], contiguous.
    """
    item = np.dtype((np.void, target.shape[1] * 4))
    np.put(target.view(item).ravel(), places, rows.view(item).ravel(), mode="clip")
