"""One barrier written on behalf of a person (or a policy): rollback, deny list, withdrawal.

Whoever intervenes takes the model's tenure for a moment: it works with the manager alive, paused or dead. A running
manager finds itself fenced when its next barrier is due, finds the command's audit entry, and takes the tenure back.
"""

import getpass
import socket
from dataclasses import replace

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import ModelState
from ekko.schemas.errors import CommitUncertain, Fenced, TransactionAborted
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster
from ekko.streams.manager.barriers import Amendment
from ekko.streams.manager.history import History, read_audit
from ekko.streams.manager.tenure import Tenure

_ATTEMPTS = 5


def intervene(
    cluster: Cluster,
    catalogue: Catalogue,
    model: ModelDeclaration,
    amend: Amendment,
    entry: AuditEntry,
    *,
    known: History | None = None,
) -> ModelState:
    """Write a barrier with `amend`, its state and its audit entry; exactly once, whatever happens to the commit.

    After a commit of unknown fate the barrier is looked for by its audit entry, which is written with it.

    Args:
        known: the model's history as read shortly before, which saves reading it again.

    Raises:
        StateUnavailable: see the amendment; nothing was written.
        Fenced: other managers came in between again and again; nothing was written.
    """
    now_s = entry.at_us / 1e6
    for attempt in range(_ATTEMPTS):
        tenure = _take(cluster, catalogue, model, now_s, known)
        if tenure is None:
            continue
        try:
            done = _written(cluster, catalogue, tenure, entry) if attempt else None
            if done is not None:
                return done
            catalogue.refresh()
            return tenure.write_barrier(catalogue.end, now_s, amend, entry)
        except (CommitUncertain, Fenced, TransactionAborted):
            continue
        finally:
            tenure.close()
    raise Fenced(f"model {model.name}: other managers took the tenure {_ATTEMPTS} times in a row; nothing was written")


def actor() -> str:
    """Who runs this process, for the audit trail: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _take(
    cluster: Cluster, catalogue: Catalogue, model: ModelDeclaration, now_s: float, known: History | None
) -> Tenure | None:
    try:
        return Tenure(cluster, catalogue.codec, model, now_s, known)
    except (CommitUncertain, Fenced, TransactionAborted):
        return None


def _written(cluster: Cluster, catalogue: Catalogue, tenure: Tenure, entry: AuditEntry) -> ModelState | None:
    for other in read_audit(cluster, catalogue.codec, tenure.model):
        details = {name: value for name, value in other.details.items() if name in entry.details}
        if replace(other, details=details) == entry:
            return tenure.states[int(other.details["epoch"])]
    return None
