"""What `ekko retract` and `ekko reinstate` share: look at the log, decide, show, and do it."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from ekko.ops.process import central_cluster
from ekko.ops.settings import Settings
from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import Barrier, ModelState
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.manager.barriers import beginning
from ekko.streams.manager.history import read_control, read_states
from ekko.streams.manager.intervention import actor
from ekko.streams.operations.operation import Collector, Operation, Operator

Tell = Callable[[str], None]
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for: the model, why, and whether only to show what would happen."""

    model: str
    reason: str
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """An operation on the state of affairs.

    Attributes:
        identity: what its blocks carry; the same for every attempt at the same thing.
        start: the state from which on the source log is read.
        summary: what it does, a sentence.
    """

    purpose: Purpose
    identity: str
    start: int
    collector: Callable[[], Collector]
    summary: str


def perform(settings: Settings, request: Request, decide: Callable[[Barrier], Decision], tell: Tell) -> None:
    """Decide by the last barrier, and publish; raises as `decide` and `Operator.run`."""
    central = central_cluster(settings)
    with closing(SharedCatalogue(central)) as catalogue:
        catalogue.refresh(_TIMEOUT_S)
        model = catalogue.model(request.model)
        barrier = read_control(central, catalogue, model) or beginning(model.incarnation or 0)
        decision = decide(barrier)
        tell(decision.summary)
        operation = Operation(
            purpose=decision.purpose,
            identity=decision.identity,
            start=_state(read_states(central, catalogue, model), decision.start),
            collector=decision.collector,
            entry=AuditEntry(
                model=request.model,
                action=decision.purpose,
                actor=actor(),
                reason=request.reason,
                at_us=int(time.time() * 1e6),
                details={"operation": decision.identity},
            ),
        )
        operator = Operator(central, catalogue, model)
        outcome = operator.rehearse(operation) if request.dry_run else operator.run(operation)
        verb = "would be published" if request.dry_run else "published"
        tell(f"{outcome.rows} rows in {outcome.blocks} blocks {verb}" if outcome.rows else "nothing is left to be done")


def _state(states: dict[int, ModelState], number: int) -> ModelState | None:
    if number == 0:
        return None
    if number not in states:
        raise StateUnavailable(f"state {number} is not published", hint="`ekko states MODEL` lists those that are")
    return states[number]
