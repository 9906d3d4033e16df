"""How long a reader tries again what a writer is just writing."""

import time

from ekko.schemas.errors import NotReady

_PATIENCE_S = 2.0
"""Anything is written within a millisecond: after this the writer must have died in the middle of it."""

_LEAST_TRIES = 100
"""Before that is believed: a reader that is kept waiting itself for seconds between two tries has seen nothing yet."""


class Patience:
    """Of one read; it begins with the first `spend`."""

    def __init__(self) -> None:
        self._until: float | None = None
        self._tries = 0

    def spend(self, what: str) -> None:
        """Ask whether to try once more; `what` is being written.

        Raises:
            NotReady: it has been for so long that its writer must be dead.
        """
        now = time.monotonic()
        self._tries += 1
        if self._until is None:
            self._until = now + _PATIENCE_S
        elif now > self._until and self._tries > _LEAST_TRIES:
            raise NotReady(
                f"{what} stays half-written: the store process died in the middle of it",
                hint="restart the store; it recovers from its last flush and the lanes",
            )
