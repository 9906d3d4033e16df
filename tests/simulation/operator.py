"""An operator: the commands' own code, begun at any moment and killed in the middle of anything."""

from collections.abc import Callable
from unittest.mock import patch

from ekko.schemas.blocks import Purpose
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import (
    CommitUncertain,
    ConnectionFailed,
    Fenced,
    GapError,
    NotReady,
    RolledBack,
    StateUnavailable,
    TransactionAborted,
)
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.manager.barriers import Amendment, pinning, unpinning, withdrawing
from ekko.streams.manager.history import History, read_history
from ekko.streams.manager.intervention import intervene
from ekko.streams.manager.rollback import plan_rollback, returning
from ekko.streams.operations import operation as operations
from ekko.streams.operations.operation import Collector, Operation
from ekko.streams.operations.operation import Operator as Operations
from ekko.streams.operations.reinstate import Reinstatement, reinstatement_name
from ekko.streams.operations.retract import Retraction
from tests.simulation.checks.reinstated import Reinstated
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.machines import Machine

_NOT_NOW = (
    *(CommitUncertain, ConnectionFailed, Fenced, NotReady, RolledBack, StateUnavailable, TimeoutError),
    *(GapError, TransactionAborted),
)
"""What a command may end with: it says why, and nothing was written, or what was can be looked up. A GapError is
retention that has passed what a retraction needs."""

_CHUNK_BYTES = 200
"""Some rows, so that operations die and are fenced between two chunks."""


class Operator(Machine):
    """Runs a command now and then: `work` is one command from its beginning to its end.

    Attributes:
        retracted: trainer and epochs of each retraction that has ended well, for the checks; not those of `raw`, in
            whose name retractions come that no command has made.
        reinstated: reinstatements that have ended well.
    """

    def __init__(self, environment: Environment) -> None:
        super().__init__("operator", environment)
        self.retracted: list[tuple[str, EpochRange]] = []
        self.reinstated: list[Reinstated] = []
        self._unfinished: EpochRange | None = None  # what the operator, who is no process, remembers
        self._agenda: list[Callable[[History], None]] = []
        self._commands: tuple[Callable[[History], None], ...] = (
            *(self._roll_back, self._roll_back, self._pin, self._pin, self._unpin),
            *(self._withdraw, *[self._retract] * 4, *[self._reinstate] * 4),
        )

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        self._cluster = self.environment.connect(CENTRAL, self.doom)
        self._catalogue = Catalogue(self._cluster)
        self._catalogue.refresh()
        self._model = self._catalogue.model(self.environment.scenario.model)

    def work(self, now_s: float) -> bool:
        """See `Machine.work`; it has nothing to do by itself, so it never keeps a world from coming to rest."""
        del now_s
        if self.environment.rng.random() >= self.environment.scenario.commands:
            return False
        rng = self.environment.rng
        command = self._agenda.pop(0) if self._agenda and rng.random() < 0.7 else rng.choice(self._commands)
        try:
            command(read_history(self._cluster, self._catalogue.codec, self._model, timeout_s=2.0))
        except _NOT_NOW as error:
            self.environment.log(f"operator: {command.__name__} ended with {type(error).__name__}: {error}")
            self._unfinished = None if isinstance(error, GapError) else self._unfinished  # it will never be had
        return True

    def rest_easy(self) -> None:
        """See `Machine.rest_easy`; there are no commands any more."""
        super().rest_easy()
        self._commands, self._agenda = (lambda _: None,), []

    def _roll_back(self, history: History) -> None:
        to = self.environment.rng.randint(max(0, history.barrier.epoch - 4), history.barrier.epoch)
        plan = plan_rollback(self._model, history.barrier, history.states, {}, to)
        self._intervene("rollback", returning(plan.to), history)

    def _pin(self, history: History) -> None:
        state = self.environment.rng.randint(max(0, history.barrier.epoch - 4), history.barrier.epoch)
        serve = self.environment.rng.random() < 0.5
        self._intervene("serve pinned" if serve else "pin", pinning(state, serve=serve), history)

    def _unpin(self, history: History) -> None:
        self._intervene("unpin", unpinning, history)

    def _withdraw(self, history: History) -> None:
        chosen = {self.environment.rng.randint(0, history.barrier.epoch) for _ in range(2)} - {history.barrier.epoch}
        self._intervene("withdraw", withdrawing(chosen - {history.barrier.pinned}), history)

    def _intervene(self, action: str, amend: Amendment, history: History) -> None:
        entry = self._entry(action, history.barrier)
        opened = intervene(
            *(self._cluster, self._catalogue, self._model, amend, entry), known=history, pause=lambda _: None
        )
        self.environment.log(f"operator: {action} by barrier {opened.epoch}")

    def _retract(self, history: History) -> None:
        last = history.barrier.epoch - 1
        if last < 0:
            return
        first = self.environment.rng.randint(max(0, last - 4), last)
        trainer, epochs = self.environment.rng.choice(("trainer-0", "raw")), EpochRange(first, last)
        identity = f"retract/{trainer}/{first}-{last}"
        if self._operate(Purpose.RETRACT, identity, first, lambda: Retraction(trainer, epochs), history):
            self.retracted += [(trainer, epochs)] if trainer != "raw" else []

    def _reinstate(self, history: History) -> None:
        if not history.barrier.voids:
            return
        rng, voids = self.environment.rng, history.barrier.voids
        void = self._unfinished = self._unfinished or rng.choice((voids[-1], rng.choice(voids)))
        self._agenda = [self._reinstate]
        identity = reinstatement_name(void)
        if self._operate(Purpose.REINSTATE, identity, void.first, lambda: Reinstatement(void), history):
            self.reinstated.append(Reinstated(void, self.environment.source_ends()))
            self._agenda = rng.choice(([], [self._reinstate], [self._roll_back, self._reinstate, self._reinstate]))
        self._unfinished = None

    def _operate(
        self, purpose: Purpose, identity: str, first: int, collector: Callable[[], Collector], history: History
    ) -> bool:
        """Whether it has ended well."""
        start = history.states.get(first)
        if first and start is None:
            return False  # its record is not published yet
        operation = Operation(purpose, identity, start, collector, self._entry(purpose, history.barrier))
        with patch.object(operations, "_CHUNK_BYTES", _CHUNK_BYTES):
            outcome = Operations(self._cluster, self._shared(), self._model).run(operation)
        self.environment.log(f"operator: {identity}, {outcome.rows} rows")
        return True

    def _shared(self) -> SharedCatalogue:
        catalogue = SharedCatalogue(self._cluster)
        catalogue.refresh()
        return catalogue

    def _entry(self, action: str, barrier: Barrier) -> AuditEntry:
        at_us = int(self.environment.clock.now_s * 1e6)
        return AuditEntry(self._model.name, action, "operator", f"seen at {barrier.epoch}", at_us)

    def crash(self) -> None:
        """See `Machine.crash`."""
