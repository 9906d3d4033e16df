"""Signals on their way to the models' topics: from this process and from serving processes that have no Kafka."""

import queue

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import QueueFull
from ekko.schemas.signals import Signal
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.replica.outlet import Outlet

_WAITING = 10_000
"""Signals are aggregates, a few a second; more than this waiting means that the central cluster is away."""

_CLOSE_TIMEOUT_S = 1.0


class SignalRelay:
    """Bounded; a central cluster that is away costs signals, never rows.

    Args:
        central: where the monitor reads.
    """

    def __init__(self, central: Cluster) -> None:
        self._outlet = Outlet(central, "signals")
        self._waiting: queue.Queue[Signal] = queue.Queue(_WAITING)

    @property
    def dropped(self) -> int:
        """Signals that were accepted and could not be delivered."""
        return self._outlet.lost

    @property
    def trouble(self) -> str:
        """See `Outlet.trouble`."""
        return self._outlet.trouble

    def put(self, signal: Signal) -> None:
        """Accept a signal, from any thread; raises QueueFull."""
        try:
            self._waiting.put_nowait(signal)
        except queue.Full:
            raise QueueFull(f"{_WAITING} signals wait already", hint="report sums over longer intervals") from None

    def pass_on(self) -> None:
        """Send what waits. Called by one thread, often."""
        sent = True
        while sent and not self._waiting.empty():
            signal = self._waiting.get_nowait()
            sent = self._outlet.send(Output(Partition(topics.signals(signal.model), 0), encode(signal)))
        self._outlet.poll()

    def close(self) -> None:
        """Send what waits, where that takes no more than a second, and release the connection."""
        self.pass_on()
        self._outlet.close(_CLOSE_TIMEOUT_S)
