"""`ekko reinstate`: give a model back what a rollback took, after a false alarm."""

from ekko.ops.operating import Decision, Request, Tell, perform
from ekko.ops.settings import Settings
from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import ConfigurationError
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
            summary=f"what epochs {void.first} to {void.last} held is published again",
        )

    perform(settings, request, decide, tell)
