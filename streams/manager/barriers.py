"""What the next barrier says: a pure function of the last committed one and of what is asked for."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.limits import MAX_VOIDS

Amendment = Callable[[Barrier], Barrier]
"""A change of the next barrier's control state: rollback, withdrawal, deny list."""


def beginning(incarnation: int) -> Barrier:
    """What holds before the first barrier: epoch 0 starts at the start of the source log, without a record."""
    return Barrier(incarnation=incarnation, epoch=0, generation=0, catalogue_end=0)


def following(last: Barrier, catalogue_end: int, written_us: int, amend: Amendment | None = None) -> Barrier:
    """The barrier that closes `last`'s epoch and opens the next; control state is carried on in full.

    Args:
        last: the last committed barrier, or `beginning`.
        catalogue_end: end of the catalogue, read after `last` was committed.
        written_us: microseconds since 1970.
        amend: changes what the new barrier carries.
    """
    barrier = replace(last, epoch=last.epoch + 1, catalogue_end=catalogue_end, written_us=written_us)
    return barrier if amend is None else amend(barrier)


def rolling_back(to: int) -> Amendment:
    """Void everything from state `to` up to the barrier, and begin a new generation.

    A pinned state in between has held voided deltas: state `to` is pinned in its place, or, where that had itself been
    taken back, the one it was taken back to.

    Raises (when applied):
        StateUnavailable: no such state yet, or it is withdrawn; or the limit on voids is reached.
    """

    def amend(barrier: Barrier) -> Barrier:
        if not 0 <= to < barrier.epoch:
            raise StateUnavailable(f"state {to} does not exist: the last one is {barrier.epoch - 1}")
        if any(to in run for run in barrier.withdrawn):
            raise StateUnavailable(f"state {to} is withdrawn", hint="`ekko states MODEL` lists those that are left")
        if len(barrier.voids) >= MAX_VOIDS:
            raise StateUnavailable(f"the model was rolled back {MAX_VOIDS} times already, which is the limit")
        void = EpochRange(to, barrier.epoch - 1)
        pinned = barrier.pinned
        if pinned is not None and pinned in void:
            pinned = _first_alike(to, barrier.voids)
        return replace(barrier, generation=barrier.generation + 1, voids=(*barrier.voids, void), pinned=pinned)

    return amend


def denying(trainer: str) -> Amendment:
    """Reject the blocks of `trainer` from the barrier on."""
    return lambda barrier: replace(barrier, denied=tuple(sorted({*barrier.denied, trainer})))


def allowing(trainer: str) -> Amendment:
    """Accept the blocks of `trainer` again from the barrier on."""
    return lambda barrier: replace(barrier, denied=tuple(name for name in barrier.denied if name != trainer))


def withdrawing(states: Iterable[int]) -> Amendment:
    """Give up `states` as targets of rollbacks."""
    chosen = set(states)
    return lambda barrier: replace(barrier, withdrawn=united(barrier.withdrawn, chosen))


def pinning(state: int, *, serve: bool = False) -> Amendment:
    """Keep `state` readable, and the only one pinned; with `serve` readers get its rows in place of the live ones.

    Raises (when applied):
        StateUnavailable: no such state yet, or it is withdrawn or was voided.
    """

    def amend(barrier: Barrier) -> Barrier:
        if not 0 <= state < barrier.epoch:
            raise StateUnavailable(f"state {state} does not exist: the last one is {barrier.epoch - 1}")
        if any(state in run for run in barrier.withdrawn):
            raise StateUnavailable(f"state {state} is withdrawn", hint="`ekko states MODEL` lists those that are left")
        alike = _first_alike(state, barrier.voids)
        if alike != state:
            raise StateUnavailable(f"state {state} was taken back by a rollback", hint=f"pin state {alike}")
        return replace(barrier, pinned=state, serves_pinned=serve)

    return amend


def unpinning(barrier: Barrier) -> Barrier:
    """Pin nothing any more; readers get live rows."""
    return replace(barrier, pinned=None, serves_pinned=False)


def _first_alike(state: int, voids: Sequence[EpochRange]) -> int:
    """The state to which `state` was taken back by these voids; itself if it was not."""
    while (void := next((void for void in voids if void.first < state <= void.last), None)) is not None:
        state = void.first
    return state


def united(runs: Iterable[EpochRange], more: Iterable[int]) -> tuple[EpochRange, ...]:
    """The union of `runs` and single states `more` as the fewest disjoint, ordered runs."""
    ordered = sorted([*runs, *(EpochRange(state, state) for state in more)])
    merged: list[EpochRange] = []
    for run in ordered:
        if merged and run.first <= merged[-1].last + 1:
            merged[-1] = EpochRange(merged[-1].first, max(merged[-1].last, run.last))
        else:
            merged.append(run)
    return tuple(merged)
