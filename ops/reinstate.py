"""`ekko reinstate`: give a model back what a rollback took, after a false alarm."""

from collections.abc import Iterable

from ekko.ops.operating import Decision, Request, Tell, perform
from ekko.ops.settings import Settings
from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import ConfigurationError
from ekko.streams.manager.barriers import united
from ekko.streams.operations.reinstate import Reinstatement, reinstatement_name


def run(settings: Settings, request: Request, to: int | None, tell: Tell) -> None:
    """Reinstate what the newest rollback to state `to` (None: the newest of all) has voided.

    Raises:
        ConfigurationError: there was no such rollback.
        GapError: retention has passed the voided range; nothing was written.
    """

    def decide(barrier: Barrier) -> Decision:
        void = next((void for void in reversed(barrier.voids) if to is None or void.first == to), None)
        if void is None:
            known = ", ".join(f"{void.first} to {void.last}" for void in barrier.voids) or "none"
            raise ConfigurationError("there was no such rollback", hint=f"voided epochs: {known}")
        return Decision(
            purpose=Purpose.REINSTATE,
            identity=reinstatement_name(void),
            start=void.first,
            collector=lambda: Reinstatement(void),
            summary=summary(void, barrier.voids),
        )

    perform(settings, request, decide, tell)


def summary(void: EpochRange, voids: Iterable[EpochRange]) -> str:
    """What is published again, and what is not because other rollbacks cover it, too."""
    told = f"what epochs {void.first} to {void.last} held is published again"
    common = [EpochRange(max(void.first, other.first), min(void.last, other.last)) for other in voids if other != void]
    runs = united([run for run in common if run.first <= run.last], ())
    if not runs:
        return told
    epochs = ", ".join(f"{run.first} to {run.last}" for run in runs)
    return f"{told}; of epochs {epochs} only what had been reinstated before: another rollback covers them, too"
