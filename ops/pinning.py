"""`ekko pin`: one barrier that says which state is pinned, and whether it is served."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ekko.ops.process import central_cluster
from ekko.ops.settings import load
from ekko.schemas.epochs import ModelState
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue import Catalogue
from ekko.streams.manager.barriers import Amendment, pinning, unpinning
from ekko.streams.manager.intervention import actor, intervene


@dataclass(frozen=True, slots=True)
class Request:
    """The model, why, and where Kafka is."""

    model: str
    reason: str
    bootstrap: str | None = None
    config: Path | None = None


def pin(request: Request, state: int, *, serve: bool) -> str:
    """Pin `state`, and serve it in place of live rows or not; what was done, in a sentence.

    Raises:
        StateUnavailable: it does not exist, is withdrawn or was taken back; nothing was written.
    """
    action = "serve pinned" if serve else "pin"
    opened = _write(request, action, pinning(state, serve=serve), {"state": str(state)})
    readers = f"get state {state} in place of live rows" if serve else "get live rows"
    return f"state {state} of {request.model} is pinned from barrier {opened.epoch} on; readers {readers}"


def unpin(request: Request) -> str:
    """Pin nothing any more; what was done, in a sentence."""
    opened = _write(request, "unpin", unpinning, {})
    return f"no state of {request.model} is pinned from barrier {opened.epoch} on; readers get live rows"


def _write(request: Request, action: str, amend: Amendment, details: dict[str, str]) -> ModelState:
    settings = load(request.config, bootstrap=request.bootstrap)
    with closing(central_cluster(settings)) as central, closing(Catalogue(central)) as catalogue:
        catalogue.refresh()
        model = catalogue.model(request.model)
        entry = AuditEntry(request.model, action, actor(), request.reason, int(time.time() * 1e6), details)
        return intervene(central, catalogue, model, amend, entry)
