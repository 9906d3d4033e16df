"""Signals on their way to the models' topics: from this process and from serving processes that have no Kafka."""

import logging
import queue

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import EkkoError, QueueFull
from ekko.schemas.signals import Signal
from ekko.streams.log import Cluster, Output, Partition

_log = logging.getLogger("ekko.store")

_WAITING = 10_000
"""Signals are aggregates, a few a second; more than this waiting means that the central cluster is away."""


class SignalRelay:
    """Bounded; a central cluster that is away costs signals, never rows.

    Args:
        central: where the monitor reads.
    """

    def __init__(self, central: Cluster) -> None:
        self._writer = central.writer()
        self._waiting: queue.Queue[Signal] = queue.Queue(_WAITING)
        self.dropped = 0
        """Signals that were accepted and could not be delivered."""

    def put(self, signal: Signal) -> None:
        """Accept a signal, from any thread; raises QueueFull."""
        try:
            self._waiting.put_nowait(signal)
        except queue.Full:
            raise QueueFull(f"{_WAITING} signals wait already", hint="report sums over longer intervals") from None

    def pass_on(self) -> None:
        """Send what waits. Called by one thread, often."""
        try:
            while True:
                signal = self._waiting.get_nowait()
                partition = Partition(topics.signals(signal.model), 0)
                self._writer.send(Output(partition, encode(signal)), self._delivered)
        except queue.Empty:
            pass
        except EkkoError as error:
            self._delivered(None, error)
        self._writer.poll()

    def _delivered(self, _offset: int | None, error: Exception | None) -> None:
        if error is not None:
            self.dropped += 1
            _log.debug("a signal was dropped: %s", error)

    def close(self) -> None:
        """Send what waits, where that takes no more than a second, and release the connection."""
        self.pass_on()
        self._writer.close()
