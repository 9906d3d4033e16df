"""Waiting with an end. Patience costs nothing where all is well: a slow machine full of other tests needs it."""

import time
from collections.abc import Callable

PATIENCE_S = 120.0
"""For whatever happens in another process or thread."""


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE_S, *, what: str = "") -> None:
    """Return when the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.05)


def until_true(check: Callable[[], None], seconds: float = PATIENCE_S) -> None:
    """Make the check again until none of its assertions fails; fail as the last time after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, ValueError):  # or something else than one thing was unpacked as one
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
