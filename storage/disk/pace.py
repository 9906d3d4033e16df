"""When to flush. Pure: time is an argument."""

import math

_INTERVAL_S = 2.0
_ROWS = 500_000
_REST = 1.0
"""Times the duration of a flush for which none follows it: under full load rows change more than once between two
flushes, so rarer ones write each of them less often, and merging the files finds a processor."""


class FlushPace:
    """Every 2 s, or once so many rows have changed; but never more than half of the time."""

    def __init__(self) -> None:
        self._begun_s: float | None = None
        self._due_s: float | None = None
        self._rested_s = 0.0

    def due(self, now_s: float, *, busy: bool, touched: int, pressed: bool) -> bool:
        """Whether to begin a flush now.

        Args:
            now_s: seconds on a clock that only rises.
            busy: whether one is under way. touched: rows changed since the last one began.
            pressed: whether memory can be let go only once journals are durable; there is no rest then.
        """
        if busy:
            return False
        if self._begun_s is not None:
            self._rested_s = now_s + _REST * (now_s - self._begun_s)
            self._begun_s = self._due_s = None
        if self._due_s is None:
            self._due_s = now_s + _INTERVAL_S
        rested = now_s >= self._rested_s and (touched >= _ROWS or now_s >= self._due_s)
        if pressed or rested:
            self._begun_s = now_s
        return pressed or rested

    def given_up(self) -> None:
        """The flush under way was given up: there is nothing to rest from, and it is due at once."""
        self._begun_s, self._due_s = None, -math.inf
