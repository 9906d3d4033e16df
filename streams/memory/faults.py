"""What can go wrong between one simulated process and its broker; the base class lets nothing go wrong."""

from enum import Enum, auto

from ekko.schemas.errors import ConnectionFailed
from ekko.streams.memory.broker import PartitionLog


class Fate(Enum):
    """What becomes of one write."""

    DONE = auto()
    REFUSED = auto()
    """Nothing was written, and the writer is told so."""
    REPLY_LOST = auto()
    """It is written, but the writer never hears of it."""
    HANGING = auto()
    """The commit was asked for and is decided by whoever ends the transaction (only in transactions)."""


class Faults:
    """What goes wrong between one process and its broker. This base class: nothing."""

    def reachable(self) -> bool:
        """Whether a request gets an answer now."""
        return True

    def interrupt(self, moment: str) -> None:
        """Called at moments where a process may be killed; raises to kill it. `moment` tells where."""

    def waited(self, seconds: float) -> None:
        """Called when a process would have waited in vain: whoever keeps its clock may move it."""

    def transaction(self) -> Fate:
        """Fate of the transaction about to be committed."""
        return Fate.DONE

    def marker_delay_s(self) -> float:
        """How long after its answer a commit becomes visible."""
        return 0.0

    def delivery(self) -> Fate:
        """Fate of the plain record about to be sent."""
        return Fate.DONE

    def held_back(self) -> bool:
        """Whether a plain writer's queue stays where it is for this poll (linger, a slow link)."""
        return False

    def visible_end(self, log: PartitionLog, position: int, waited_s: float) -> int:
        """Offset up to which a reader at `position`, having waited so long for it, gets `log` (lanes race by it)."""
        del position, waited_s
        return log.stable

    def require_broker(self) -> None:
        """Go on only while the broker answers.

        Raises:
            ConnectionFailed: it does not.
        """
        self.interrupt("request")
        if not self.reachable():
            raise ConnectionFailed("no broker answers within the time-out", hint="check that the broker runs")
