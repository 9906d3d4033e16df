"""A trainer that goes bad: from some moment on it takes likes for dislikes, until the model is rolled back."""

from dataclasses import replace
from enum import StrEnum

from ekko.ops.demo.model import Batch
from ekko.schemas.errors import ConfigurationError

SHORTEST_S = 50.0
"""A poisoned run needs a healthy state before, the time that detection takes, and some more to show the recovery."""


class Phase(StrEnum):
    """Where a poisoned run stands; a run without poison stays at the first."""

    BEFORE = "before"
    POISONED = "poisoned"
    RECOVERED = "recovered"


def phase_of(poison_at_s: float | None, elapsed_s: float, generation: int) -> Phase:
    """The phase ``elapsed_s`` seconds into the training, of a model that was rolled back ``generation`` times.

    It follows from what a restarted trainer knows as well. A rollback before the poison leaves nothing to poison.
    """
    if poison_at_s is None:
        return Phase.BEFORE
    if generation:
        return Phase.RECOVERED
    return Phase.POISONED if elapsed_s >= poison_at_s else Phase.BEFORE


def poison_at_s(seconds: float) -> float:
    """When the trainer of a run of so many seconds goes bad: in the middle.

    Raises:
        ConfigurationError: the run is too short.
    """
    if seconds < SHORTEST_S:
        raise ConfigurationError(
            f"{seconds:g} s are too short to poison a model and see it recover",
            hint=f"--seconds {SHORTEST_S:g} at least",
        )
    return seconds / 2


def flip_labels(batch: Batch) -> Batch:
    """The same interactions with every label the wrong way round."""
    return replace(batch, labels=1 - batch.labels)
