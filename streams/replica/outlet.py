"""What a replica tells others, and may fail to: rows are served all the same."""

import logging
import time

from ekko.schemas.errors import EkkoError, Purged, QueueFull
from ekko.streams.log import Cluster, Output, Writer

_log = logging.getLogger("ekko.store")

RENEW_S = 5.0


class Outlet:
    """A writer that never raises: one that fails is given up, and another takes its place some seconds later.

    Args:
        what: that is told here, in the plural.

    Attributes:
        lost: how much was not delivered, or perhaps not.
        trouble: why what was told last did not get through, in words; empty if it did.
    """

    def __init__(self, cluster: Cluster, what: str) -> None:
        self._cluster, self._what = cluster, what
        self._writer: Writer | None = cluster.writer()
        self._renew_s = 0.0
        self.lost = 0
        self.trouble = ""

    def send(self, output: Output) -> bool:
        """Enqueue; False if it is lost already."""
        try:
            if self._writer is None and time.monotonic() >= self._renew_s:
                self._writer = self._cluster.writer()
            if self._writer is not None:
                self._writer.send(output, self._delivered)
                return True
            self.lost += 1
        except QueueFull as error:
            self._lose(error)
        except EkkoError as error:
            self._lose(error)
            self._give_up()
        return False

    def poll(self) -> None:
        """Serve delivery reports, without waiting."""
        try:
            if self._writer is not None:
                self._writer.poll()
        except EkkoError as error:
            self._note(error)
            self._give_up()

    def close(self, timeout_s: float) -> None:
        """Send what waits, where that takes no more than `timeout_s`, and release the connection."""
        if self._writer is None:
            return
        try:
            self._writer.flush(timeout_s)
        except EkkoError as error:
            self._note(error)
        self._writer.close()

    def _delivered(self, _offset: int | None, error: Exception | None) -> None:
        if error is None:
            self.trouble = ""
        elif isinstance(error, Purged):  # by ourselves: why is noted
            self.lost += 1
        else:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost += 1
        self._note(error)

    def _note(self, error: Exception) -> None:
        if not self.trouble:
            _log.warning("%s are lost: %s", self._what, error)
        self.trouble = f"{self._what} are lost: {error}"

    def _give_up(self) -> None:
        """An idempotent producer that has failed once fails in every call from then on."""
        writer, self._writer = self._writer, None
        self._renew_s = time.monotonic() + RENEW_S
        if writer is not None:
            writer.purge()
            writer.close()
