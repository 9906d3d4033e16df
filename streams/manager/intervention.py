"""One barrier written on behalf of a person (or a policy): rollback, deny list, withdrawal.

Whoever intervenes takes the model's tenure for a moment: it works with the manager alive, paused or dead. A running
manager finds itself fenced when its next barrier is due, finds the command's audit entry, and takes the tenure back.
"""

import getpass
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import ModelState
from ekko.schemas.errors import CommitUncertain, EkkoError, Fenced, TransactionAborted
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster
from ekko.streams.manager.barriers import Amendment
from ekko.streams.manager.history import History, read_audit
from ekko.streams.manager.tenure import Tenure

_ATTEMPTS = 8
_BACK_OFF = wait_random_exponential(multiplier=0.05, max=1.0)
"""Two who intervene at once fence each other, attempt after attempt, until one of them is away for long enough."""
_PASSING = (CommitUncertain, Fenced, TransactionAborted)


def intervene(
    cluster: Cluster,
    catalogue: Catalogue,
    model: ModelDeclaration,
    amend: Amendment,
    entry: AuditEntry,
    *,
    known: History | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> ModelState:
    """Write a barrier with `amend`, its state and its audit entry; exactly once, whatever happens to the commit.

    After a commit of unknown fate the barrier is looked for by its audit entry, which is written with it.

    Args:
        known: the model's history as read shortly before, which saves reading it again.
        pause: waits so many seconds between two attempts.

    Raises:
        StateUnavailable: see the amendment; nothing was written.
        Fenced: other managers came in between again and again; nothing was written.
        CommitUncertain: nobody could look any more for a barrier that may have been written.
        EkkoError, TimeoutError: whatever else keeps the model's history from being read; nothing was written.
    """
    intervention = _Intervention(cluster, catalogue, model, amend, entry)
    attempts = Retrying(
        stop=stop_after_attempt(_ATTEMPTS),
        wait=_BACK_OFF,
        retry=retry_if_result(lambda done: done is None),
        retry_error_callback=lambda _: None,
        sleep=pause,
    )
    try:
        done: ModelState | None = attempts(intervention.attempt, known)
    except (EkkoError, TimeoutError) as error:
        if intervention.uncertain:
            raise _unknown(model, str(error)) from error
        raise
    if done is not None:
        return done
    lost = f"other managers took the tenure {_ATTEMPTS} times in a row"
    if intervention.uncertain:
        raise _unknown(model, lost)
    raise Fenced(f"model {model.name}: {lost}; nothing was written", hint="run it again")


class _Intervention:
    """Tries to write the barrier, once an attempt.

    Attributes:
        uncertain: whether an attempt may have written it, and nobody has looked since.
    """

    def __init__(
        self, cluster: Cluster, catalogue: Catalogue, model: ModelDeclaration, amend: Amendment, entry: AuditEntry
    ) -> None:
        self.uncertain = False
        self._cluster, self._catalogue, self._model = cluster, catalogue, model
        self._amend, self._entry = amend, entry

    def attempt(self, known: History | None) -> ModelState | None:
        """The state that the barrier opens, or None: somebody came in between, try again. Raises as `intervene`."""
        now_s = self._entry.at_us / 1e6
        try:
            tenure = Tenure(self._cluster, self._catalogue.codec, self._model, now_s, known)
        except _PASSING:
            return None
        try:
            return self._written(tenure) or self._write(tenure, now_s)
        except _PASSING:
            return None
        finally:
            tenure.close()

    def _written(self, tenure: Tenure) -> ModelState | None:
        """The state, if an earlier attempt did write the barrier; whoever holds the tenure finds all of its fate."""
        if not self.uncertain:
            return None
        for other in read_audit(self._cluster, self._catalogue.codec, self._model):
            details = {name: value for name, value in other.details.items() if name in self._entry.details}
            if replace(other, details=details) == self._entry:
                return tenure.states[int(other.details["epoch"])]
        self.uncertain = False
        return None

    def _write(self, tenure: Tenure, now_s: float) -> ModelState:
        self._catalogue.refresh()
        before = tenure.barrier
        try:
            return tenure.write_barrier(self._catalogue.end, now_s, self._amend, self._entry)
        except EkkoError as error:
            # Who is fenced may have had the answer to its commit lost; the states are written after the barrier.
            self.uncertain = isinstance(error, CommitUncertain | Fenced) or tenure.barrier is not before
            raise


def _unknown(model: ModelDeclaration, why: str) -> CommitUncertain:
    return CommitUncertain(
        f"model {model.name}: the barrier may be written or not: {why}",
        hint=f"`ekko states {model.name}` shows whether it is there; if not, run it again",
    )


def actor() -> str:
    """Who runs this process, for the audit trail: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
