"""The pace of the replay: which interactions are due."""

from dataclasses import dataclass

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.model import Batch, take_batch


@dataclass(slots=True)
class Replay:
    """Hands out interactions at a fixed rate in batches of one size; after a stall, in batches up to 8 times as large.

    Attributes:
        interactions: the stream.
        rate: interactions a second.
        batch: interactions in a batch at the normal pace.
        position: the next interaction to hand out.
        origin: the position at which the clock stands at 0.
    """

    interactions: Interactions
    rate: float
    batch: int
    position: int
    origin: int

    def wait_s(self, elapsed_s: float) -> float:
        """Seconds until the next batch is due, 0 if it is."""
        return max(0.0, (self.position + self.batch - self.origin) / self.rate - elapsed_s)

    def take(self, elapsed_s: float) -> Batch:
        """The next batch: what is due after ``elapsed_s``, within the bounds, and never beyond the end."""
        due = self.origin + int(elapsed_s * self.rate) - self.position
        count = min(max(due // self.batch, 1), 8) * self.batch
        start, self.position = self.position, min(self.position + count, len(self.interactions))
        return take_batch(self.interactions, start, self.position)

    @property
    def finished(self) -> bool:
        """Whether the stream is at its end."""
        return self.position >= len(self.interactions)
