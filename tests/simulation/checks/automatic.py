"""The hourly limit of automatic rollbacks: never more of them, and then the pinned or last healthy state is served.

Who has rolled the model back is told by the barriers and the audit trail; no manager's memory is asked.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise

from ekko.schemas import topics
from ekko.schemas.epochs import Barrier, ModelState, Verdict
from ekko.schemas.signals import AuditEntry
from ekko.streams.log import Partition
from ekko.streams.memory.broker import MemoryBroker
from tests.simulation.truth import Truth, committed, decoded

HOUR_US = 60 * 60 * 1_000_000


def read_trail(broker: MemoryBroker, model: str) -> list[AuditEntry]:
    """The audit trail."""
    entries = (decoded(record.value) for record in committed(broker, Partition(topics.audit(model), 0)))
    return [entry for entry in entries if isinstance(entry, AuditEntry)]


def by_manager(entry: AuditEntry, action: str) -> bool:
    """Whether a manager has done this, unasked."""
    return (entry.action, entry.actor) == (action, "state manager")


class Automatic:
    """All barriers there are, at rest.

    Args:
        limit: automatic rollbacks that an hour may have.
        rolled_back: epochs of the rollbacks that stand in no audit trail, which are not the managers'.
    """

    def __init__(self, truth: Truth, broker: MemoryBroker, limit: int, rolled_back: Collection[int]) -> None:
        self._limit = limit
        self._states = [
            decoded(record.value) for record in committed(broker, Partition(topics.states(truth.model.name), 0))
        ]
        entries = read_trail(broker, truth.model.name)
        self._trail = {int(entry.details["epoch"]): entry for entry in entries if "epoch" in entry.details}
        barriers = [barrier for _, barrier in truth.barriers[0]]
        self._written_us = [0, *(barrier.written_us for barrier in barriers)]
        self._changes = list(pairwise([Barrier(truth.model.incarnation or 0, 0, 0, 0), *barriers]))
        rollbacks = [barrier for before, barrier in self._changes if len(barrier.voids) > len(before.voids)]
        unknown = [at.epoch for at in rollbacks if at.epoch not in rolled_back and at.epoch not in self._trail]
        assert not unknown, f"nobody answers for the rollbacks by barriers {unknown}"
        self._rollbacks = [barrier for barrier in rollbacks if self._is_by_manager(barrier, "rollback")]

    def _is_by_manager(self, barrier: Barrier, action: str) -> bool:
        return barrier.epoch in self._trail and by_manager(self._trail[barrier.epoch], action)

    def check_limit(self) -> None:
        """No hour has more of them."""
        for one, other in zip(self._rollbacks, self._rollbacks[self._limit :], strict=False):
            apart_us = other.written_us - one.written_us
            assert apart_us >= HOUR_US, f"{self._limit + 1} automatic rollbacks in {apart_us} us: {one} to {other}"

    def check_served(self, since_us: Collection[int]) -> None:
        """Where none is left, and only there, the state pinned before is served, or else the last healthy one.

        That readers get it, and that its rows are right, is the business of `check_pinned` and `check_as_of`.

        Args:
            since_us: when the episodes began that the monitor told of.
        """
        for before, barrier in self._changes:
            if self._is_by_manager(barrier, "serve pinned"):
                ago_us = [(barrier.written_us - one.written_us, one) for one in self._rollbacks]
                recent = [one for us, one in ago_us if us < HOUR_US and one.epoch < barrier.epoch]
                assert len(recent) == self._limit, f"{barrier} serves a state, {recent} are all of the hour's rollbacks"
                assert barrier.serves_pinned, f"{barrier} serves live rows"
                if before.pinned is not None:
                    assert barrier.pinned == before.pinned, f"{barrier} does not serve {before.pinned}, which is pinned"
                else:
                    self._check_healthy(before, barrier, recent, [us for us in since_us if us <= barrier.written_us])

    def _check_healthy(self, before: Barrier, barrier: Barrier, recent: list[Barrier], since_us: Iterable[int]) -> None:
        """What is served is the newest healthy state older than those tried within the hour.

        And from before the episode, if there is one; which of several the manager answers to is not told.
        """
        healthy = set(self._healthy(before, barrier))
        assert barrier.pinned in healthy, f"{barrier} serves state {barrier.pinned}, healthy are {healthy}"
        tried = [one.voids[-1] for one in recent]
        if list(before.voids[-len(tried) :]) != tried:
            return  # a person has rolled back in between, and may know better
        untried = [epoch for epoch in healthy if epoch < min(void.first for void in tried)]
        older = ([epoch for epoch in untried if self._written_us[epoch] <= us] for us in since_us)
        last = {max(epochs or untried) for epochs in older if untried}
        assert barrier.pinned in last, f"{barrier} serves state {barrier.pinned}, the last healthy one is of {last}"

    def _healthy(self, before: Barrier, barrier: Barrier) -> Iterator[int]:
        for state in self._states:
            if isinstance(state, ModelState) and state.verdict is Verdict.HEALTHY:
                voided = any(void.first < state.epoch <= void.last for void in before.voids)
                gone = voided or any(state.epoch in run for run in before.withdrawn)
                if state.changed_us < barrier.written_us and not gone:
                    yield state.epoch
