"""Row values that wrapped around: exact still (addition is modulo 2**32), but hardly what the trainer meant."""

from collections import deque

from ekko.schemas.quantize import Int32s
from ekko.storage.engine.index import Slots
from ekko.storage.engine.memory import Array

_KEYS_KEPT = 16
_INNER = 1 << 30


class Overflows:
    """Counts the rows of one table that wrapped around, and keeps their last keys.

    As long as every row lies in the inner half of the range, whatever is added, a sum that wraps lands in the outer
    half: one look at the new rows suffices. From the first row in the outer half on, every sum is looked at closely.
    """

    def __init__(self) -> None:
        self.count = 0
        self.last_keys: deque[int] = deque(maxlen=_KEYS_KEPT)
        self._outer = False

    def notice(self, rows: Int32s) -> None:
        """Take notice of rows that come from elsewhere than a sum."""
        self._outer |= int(rows.max(initial=0)) >= _INNER or int(rows.min(initial=0)) < -_INNER

    def check(self, rows: Int32s, deltas: Int32s, keys: Array, slots: Slots) -> None:
        """Look at sums int32[N, dim] and what was added last; `keys[slots]` are their keys."""
        if not self._outer:
            self.notice(rows)
            if not self._outer:
                return
        before = rows - deltas
        wrapped = (((before ^ rows) & (deltas ^ rows)) < 0).any(axis=1)
        self.count += int(wrapped.sum())
        self.last_keys.extend(keys[slots[wrapped]][-_KEYS_KEPT:].tolist())
