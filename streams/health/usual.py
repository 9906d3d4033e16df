"""What is usual of a measure, and when something else has become so."""

from collections import deque
from statistics import median

HOLD_BUCKETS = 60
"""For so long a change is an alarm. A level that stays is judged by then (rolled back, or left so by those who know),
and an alarm that never ends would keep every later state from becoming healthy."""


class Usual:
    """The median of a measure in the buckets before, those left out in which it is far above.

    Args:
        factor: how many times the usual is far above it.
        history, min_history: buckets that make the median, and below which nothing is said.
        hold: how many buckets far above are unusual. Once there are more, and they are most of the latest ones, their
            level is the usual one: also if it is paused now and then, and not if there are outbursts only.
    """

    def __init__(self, *, factor: float, history: int, min_history: int, hold: int) -> None:
        self._factor, self._min_history, self._hold = factor, min_history, hold
        self._values: deque[float] = deque(maxlen=history)
        self._far_above: deque[float | None] = deque(maxlen=2 * hold)
        """Of each of the latest buckets, the value if it was far above."""

    def exceeded(self, value: float) -> float | None:
        """Take the value of one more bucket: what is usual, if it is far above; None if not, or too little is known."""
        usual = median(self._values) if len(self._values) >= self._min_history else None
        is_far = usual is not None and value > self._factor * usual
        if not (is_far and usual):  # of nothing, everything is many times as much: that gives way by itself
            self._far_above.append(None)
            self._values.append(value)
            return usual if is_far else None
        self._far_above.append(value)
        held = [each for each in self._far_above if each is not None]
        if len(held) <= self._hold:
            return usual
        self._values.clear()
        self._values.extend(held)
        self._far_above.clear()
        return None
