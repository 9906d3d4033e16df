"""Epochs, voids, barriers and model states: the control plane's vocabulary."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class EpochRange(NamedTuple):
    """Consecutive epochs, both ends included: a void, or a run of withdrawn states."""

    first: int
    last: int

    def __contains__(self, epoch: object) -> bool:
        return isinstance(epoch, int) and self.first <= epoch <= self.last


def is_void(epoch: int, voids: tuple[EpochRange, ...]) -> bool:
    """Whether deltas of `epoch` are never to be applied."""
    return any(epoch in void for void in voids)


def label_of(epoch: int, withdrawn: tuple[EpochRange, ...]) -> int:
    """The first epoch of those that `epoch` is one with: only withdrawn states stand between them.

    Nobody can ask any more for the rows as of a state in between, nor roll back to it: journals, and sums that wait to
    be sent, need not keep such epochs apart.
    """
    while epoch > 0 and (run := next((states for states in withdrawn if epoch in states), None)) is not None:
        epoch = run.first - 1
    return max(epoch, 0)


def without_state(ranges: Iterable[EpochRange], state: int | None) -> Iterator[EpochRange]:
    """Withdrawn states but for one: to keep more than others do is always right."""
    for states in ranges:
        if state is None or state not in states:
            yield states
            continue
        if states.first < state:
            yield EpochRange(states.first, state - 1)
        if state < states.last:
            yield EpochRange(state + 1, states.last)


@dataclass(frozen=True, slots=True)
class Barrier:
    """Marker that opens `epoch` in every source partition; carries all control state in full, never as differences.

    The same record, under key `control` in `<model>.control`, only makes voids known faster.

    Attributes:
        incarnation: the model's.
        generation: number of rollbacks so far, in force from here on.
        catalogue_end: end offset of the catalogue when the barrier was written.
        voids: every void of the model, in order of their rollbacks.
        withdrawn: model states to which nobody may roll back any more.
        denied: trainers whose blocks are rejected from here on.
        written_us: the manager's clock, microseconds since 1970.
        pinned: a state that is kept readable and never withdrawn; None for none.
        serves_pinned: readers get its rows in place of the live ones (`pinned` is not None then).
    """

    incarnation: int
    epoch: int
    generation: int
    catalogue_end: int
    voids: tuple[EpochRange, ...] = ()
    withdrawn: tuple[EpochRange, ...] = ()
    denied: tuple[str, ...] = ()
    written_us: int = 0
    pinned: int | None = None
    serves_pinned: bool = False

    @property
    def served(self) -> int | None:
        """The state whose rows readers get; None for the live ones."""
        return self.pinned if self.serves_pinned else None


class Settled(NamedTuple):
    """The last barrier of a shard before which everything that arrived has been sent, in every lane.

    `offset` is the source offset just after that barrier (0 before the first), `epoch` and `generation` what it opened.
    """

    offset: int = 0
    epoch: int = 0
    generation: int = 0


class Verdict(StrEnum):
    """What is known of a model state's health."""

    CANDIDATE = "candidate"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    CORRUPT = "corrupt"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class ModelState:
    """The offset checkpoint to which a model rolls back: state k is the barrier that opens epoch k.

    Attributes:
        offsets: the barrier's own source offset, one a shard.
        pinned: never withdrawn (the baseline).
        written_us: when the barrier was written; `changed_us`: when the verdict last changed.
    """

    model: str
    incarnation: int
    epoch: int
    generation: int
    offsets: tuple[int, ...]
    verdict: Verdict = Verdict.CANDIDATE
    reason: str = ""
    pinned: bool = False
    written_us: int = 0
    changed_us: int = 0
