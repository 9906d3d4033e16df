"""Virtual time: nothing in a simulation sleeps or looks at the machine's clock."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

START_S = 1_700_000_000.0


class Clock:
    """Seconds since 1970 as all simulated machines see them.

    Attributes:
        now_s: the world's time; only the schedule moves it.
        waited_s: what processes have waited in vain; moves only the monotonic clock by which they give up.
    """

    def __init__(self) -> None:
        self.now_s = START_S
        self.waited_s = 0.0

    def __call__(self) -> float:
        """Return the time now."""
        return self.now_s

    def monotonic(self) -> float:
        """Return what `time.monotonic` returns inside the simulation."""
        return self.now_s + self.waited_s

    def wait(self, seconds: float) -> None:
        """Let a process have waited; a wait of no length still takes a moment, so that loops without one end too."""
        self.waited_s += max(seconds, 0.001)

    def leap(self, to_us: int) -> None:
        """Let time pass up to an exact microsecond, unless that has gone by; processes that truncate read it, too."""
        seconds = to_us / 1e6
        self.now_s = max(self.now_s, seconds if int(seconds * 1e6) == to_us else math.nextafter(seconds, math.inf))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Make the functions of `time` virtual that the product uses."""
        with (
            patch("time.time", self),
            patch("time.time_ns", lambda: int(self.now_s * 1e9)),
            patch("time.monotonic", self.monotonic),
            patch("time.sleep", self.wait),
        ):
            yield
