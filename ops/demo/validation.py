"""Progressive validation: every interaction is scored with rows read from a region before anybody learns from it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.keyed import KeyedRows
from ekko.ops.demo.model import Batch, logits
from ekko.ops.demo.poison import Phase
from ekko.ops.demo.quality import QualityMeter
from ekko.schemas.errors import EkkoError

Lookup = Callable[[NDArray[np.uint64]], NDArray[np.float32]]
"""Rows ``float32[N, dim]`` of keys, read from a region's stores."""


class RegionValidation:
    """Live against stale scores of one region.

    Live scores come from rows read for the very batch, stale ones from a copy that is refreshed only every
    ``refresh_s`` seconds; interactions and scorer are the same. A batch that the region cannot serve is left out of
    both and counted in `unserved`. `phases` holds live scores by phase of a poisoned run.
    """

    def __init__(self, dim: int, vocabulary: NDArray[np.uint64], lookup: Lookup, refresh_s: float) -> None:
        self.live, self.stale = QualityMeter(), QualityMeter()
        self.live_later, self.stale_later = QualityMeter(), QualityMeter()
        self.phases = {phase: QualityMeter() for phase in Phase}
        self.unserved = 0
        self._vocabulary = vocabulary
        self._lookup = lookup
        self._refresh_s = refresh_s
        self._frozen = KeyedRows(dim)
        self._refreshes = 0
        self._next_refresh: float | None = None

    def score(self, batch: Batch, now_s: float, phase: Phase = Phase.BEFORE) -> None:
        """Score a batch; ``now_s`` is any steady clock in seconds."""
        try:
            if self._next_refresh is None or now_s >= self._next_refresh:
                self._refresh(now_s)
            rows = self._lookup(batch.keys)
        except EkkoError:
            self.unserved += len(batch.labels)
            return
        live = logits(rows, batch)
        stale = logits(self._frozen.rows[self._frozen.slots(batch.keys)], batch)
        self.live.add(live, batch.labels)
        self.phases[phase].add(live, batch.labels)
        self.stale.add(stale, batch.labels)
        if self._refreshes > 1:  # before, the stale copy holds an untrained model
            self.live_later.add(live, batch.labels)
            self.stale_later.add(stale, batch.labels)

    def _refresh(self, now_s: float) -> None:
        rows = self._lookup(self._vocabulary)
        self._frozen.clear()
        self._frozen.admit(self._vocabulary, rows)
        due = now_s if self._next_refresh is None else self._next_refresh
        self._next_refresh = due + self._refresh_s
        self._refreshes += 1
