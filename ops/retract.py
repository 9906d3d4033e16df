"""`ekko retract`: take back what one trainer has contributed."""

from ekko.ops.operating import Decision, Request, Tell, perform
from ekko.ops.settings import Settings
from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import EXPIRY_PREFIX, IMPORT_PREFIX, check_trainer
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import ConfigurationError
from ekko.streams.operations.retract import Retraction


def run(settings: Settings, request: Request, trainer: str, *, first: int, last: int | None, tell: Tell) -> None:
    """Retract `trainer`'s deltas of epochs `first` to `last`, or to the last that is closed.

    Raises:
        ConfigurationError: not a range of closed epochs, or neither a trainer's name nor an import's identity.
        GapError: retention has passed state `first`; nothing was written.
    """
    if trainer.startswith(EXPIRY_PREFIX):
        raise ConfigurationError(f"{trainer} is an expiry, no trainer", hint="only a rollback takes an expiry back")
    check_trainer(trainer.removeprefix(IMPORT_PREFIX))  # an import is taken back as a trainer's deltas are

    def decide(barrier: Barrier) -> Decision:
        epochs = EpochRange(first, barrier.epoch - 1 if last is None else last)
        if not 0 <= epochs.first <= epochs.last < barrier.epoch:
            raise ConfigurationError(
                f"epochs {epochs.first} to {epochs.last} are no range of closed epochs: {barrier.epoch} is open",
                hint="block the trainer first (`ekko trainer block`), then wait for the next state",
            )
        return Decision(
            purpose=Purpose.RETRACT,
            identity=f"retract/{trainer}/{epochs.first}-{epochs.last}",
            start=epochs.first,
            collector=lambda: Retraction(trainer, epochs),
            summary=f"what {trainer} contributed to epochs {epochs.first} to {epochs.last} is taken back",
        )

    perform(settings, request, decide, tell)


if __name__ == "__main__":
    from ekko.ops.cli import run_command

    run_command("retract")
