"""The pinned state: the same everywhere, readable, and what it was; served where the last barrier says so."""

from ekko.schemas.epochs import Barrier
from tests.simulation.replica import Replica
from tests.simulation.truth import Truth


def check_pinned(truth: Truth, replica: Replica) -> None:
    """At rest. Whether its rows are right is `check_as_of`'s business, which asks for every state there is."""
    last = truth.last_barrier
    assert replica.served == last.served, f"{replica.name} serves {replica.served}, the log says {last.served}"
    if last.pinned is not None and last.pinned >= replica.store.bound:
        assert replica.store.pinned == last.pinned, f"{replica.name} pins {replica.store.pinned}, not {last.pinned}"
    if last.pinned is None:
        assert replica.store.pinned is None, f"{replica.name} still pins {replica.store.pinned}"
    check_pin_is_a_state(last)


def check_pin_is_a_state(barrier: Barrier) -> None:
    """What is pinned is neither withdrawn nor voided."""
    if barrier.pinned is not None:
        assert not any(barrier.pinned in run for run in barrier.withdrawn), f"{barrier} has withdrawn what it pins"
        voided = [void for void in barrier.voids if void.first < barrier.pinned <= void.last]
        assert not voided, f"{barrier} pins what it has voided"
