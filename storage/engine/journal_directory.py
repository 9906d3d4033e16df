"""Which journals there are: labels, their numbers on disk, voids, withdrawn states and the bound. Pure bookkeeping.

A journal is called by its label, the state (epoch) before which its values hold. As long as no state is withdrawn each
epoch has its own; the deltas of a withdrawn state's epoch belong to the journal of the nearest earlier state that is
not withdrawn.
"""

from collections.abc import Iterable, Sequence

from ekko.schemas.epochs import EpochRange, label_of
from ekko.schemas.errors import StateUnavailable
from ekko.storage.disk.manifest import JournalEntry, Manifest


class JournalDirectory:
    """Labels of one store.

    Attributes:
        bound: the oldest model state that can be undone; deltas of earlier epochs make no journal.
        voids: epochs whose deltas are never applied (again). withdrawn: states nobody may go back to.
        pinned: the model state whose overlay stays in memory; it is never withdrawn nor below the bound.
        garbage: numbers on disk that no label uses any more.
    """

    def __init__(self) -> None:
        self.bound = 0
        self.voids: tuple[EpochRange, ...] = ()
        self.withdrawn: tuple[EpochRange, ...] = ()
        self.pinned: int | None = None
        self.garbage: set[int] = set()
        self._numbers: dict[int, tuple[int, ...]] = {}
        self._next = 0

    def recover(self, manifest: Manifest) -> None:
        """Become the directory that a manifest describes."""
        self.bound = manifest.state.bound
        self.voids = manifest.state.voids
        self.withdrawn = manifest.withdrawn
        self.pinned = manifest.pinned
        self.garbage = set(manifest.garbage)
        self._numbers = {journal.label: journal.numbers for journal in manifest.journals}
        self._next = manifest.next_journal

    @property
    def next_number(self) -> int:
        """The number that the next journal gets."""
        return self._next

    @property
    def labels(self) -> list[int]:
        """Labels in use, ascending."""
        return sorted(self._numbers)

    def entries(self) -> tuple[JournalEntry, ...]:
        """All journals, ascending by label, as the manifest holds them."""
        return tuple(JournalEntry(label, self._numbers[label]) for label in self.labels)

    def label_of(self, epoch: int) -> int:
        """The journal to which deltas of `epoch` belong."""
        return label_of(epoch, self.withdrawn)

    def number_of(self, label: int) -> int:
        """The number under which entries of `label` are written; a new label gets one."""
        if label not in self._numbers:
            self._numbers[label] = (self._next,)
            self._next += 1
        return self._numbers[label][0]

    def numbers(self, label: int) -> tuple[int, ...]:
        """The numbers under which entries of `label` stand, the first one that holds a key counts; none if unknown."""
        return self._numbers.get(label, ())

    def is_withdrawn(self, state: int) -> bool:
        """Whether nobody may go back to `state` any more."""
        return any(state in states for states in self.withdrawn)

    def check_state(self, state: int) -> None:
        """Refuse a state that cannot be undone or read here.

        Raises:
            StateUnavailable: it is withdrawn or below the bound.
        """
        if self.is_withdrawn(state):
            raise StateUnavailable(f"model state {state} is withdrawn", hint="choose a state that `ekko states` lists")
        if state < self.bound:
            raise StateUnavailable(
                f"model state {state} is below this replica's bound {self.bound}: its journals are gone",
                hint="ask another replica, or rewind from a snapshot",
            )

    def remove(self, labels: Iterable[int]) -> None:
        """Forget journals; their numbers become garbage."""
        for label in labels:
            self.garbage.update(self._numbers.pop(label, ()))

    def raise_bound(self, state: int) -> None:
        """Give up undoing states before `state`, but never the pinned one."""
        self.bound = max(self.bound, state if self.pinned is None else min(state, self.pinned))
        self.remove([label for label in self.labels if label < self.bound])

    def withdraw(self, ranges: Sequence[EpochRange]) -> list[tuple[int, int]]:
        """Withdraw states; pairs (source, target) of journals to unite, in the order in which to do it.

        Raises:
            StateUnavailable: one of them is pinned; nothing was changed.
        """
        if self.pinned is not None and any(self.pinned in states for states in ranges):
            raise StateUnavailable(
                f"model state {self.pinned} is pinned here: it cannot be withdrawn", hint="unpin it before"
            )
        self.withdrawn = _joined((*self.withdrawn, *ranges))
        bound = self.bound
        while self.is_withdrawn(bound):
            bound += 1
        if bound > self.bound:
            self.raise_bound(bound)
        unions = [(label, self.label_of(label)) for label in self.labels if self.label_of(label) != label]
        for source, target in unions:
            self._numbers[target] = (*self._numbers.get(target, ()), *self._numbers.pop(source))
        return unions


def _joined(ranges: Sequence[EpochRange]) -> tuple[EpochRange, ...]:
    """The same states in as few ranges as possible, ascending."""
    joined: list[EpochRange] = []
    for states in sorted(ranges):
        if joined and states.first <= joined[-1].last + 1:
            joined[-1] = EpochRange(joined[-1].first, max(joined[-1].last, states.last))
        else:
            joined.append(states)
    return tuple(joined)
