"""How long a reader tries again what a writer is just writing."""

import time

from ekko.schemas.errors import NotReady

_PATIENCE_S = 2.0
"""Anything is written within a millisecond: after this the writer must have died in the middle of it."""


class Patience:
    """Of one read; it begins with the first `spend`."""

    def __init__(self) -> None:
        self._until: float | None = None

    def spend(self, what: str) -> None:
        """Ask whether to try once more; `what` is being written.

        Raises:
            NotReady: it has been for so long that its writer must be dead.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + _PATIENCE_S
        elif now > self._until:
            raise NotReady(
                f"{what} stays half-written: the store process died in the middle of it",
                hint="restart the store; it recovers from its last flush and the lanes",
            )
