"""`ekko rollback`: plan, barrier, acknowledgements as they come."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ekko.ops.process import central_cluster, region_cluster
from ekko.ops.settings import Settings
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.signals import AuditEntry
from ekko.streams.catalogue import Catalogue
from ekko.streams.manager.history import read_history
from ekko.streams.manager.intervention import actor, intervene
from ekko.streams.manager.regions import Regions
from ekko.streams.manager.rollback import Acknowledgements, Region, RollbackPlan, plan_rollback, returning

Tell = Callable[[str], None]
_REGION_WAIT_S = 15.0
_WAIT_S = 0.1
"""Without news: the time may be up by then, or a replica have fallen silent, which is no announcement."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; `to` None means the last healthy state."""

    model: str
    to: int | None
    reason: str
    dry_run: bool
    force: bool
    timeout_s: float


def run(settings: Settings, request: Request, tell: Tell) -> bool:
    """Roll back; returns whether all that are up, and one in every region that has any, have acknowledged `durable`.

    Raises:
        StateUnavailable: no such state to return to, or a region cannot undo so far and `force` was not given.
    """
    central = central_cluster(settings)
    catalogue = Catalogue(central)
    catalogue.refresh()
    model = catalogue.model(request.model)
    regions = Regions(lambda region: region_cluster(settings, region), catalogue.codec)
    regions.follow(catalogue.regions)
    regions.start()
    try:
        history = read_history(central, catalogue.codec, model)
        away = regions.wait(_REGION_WAIT_S)
        for name in away:
            tell(f"region {name} does not answer: its replicas undo when it is back")
        plan = plan_rollback(model, history.barrier, history.states, regions.now(), request.to)
        _tell_plan(plan, tell)
        if request.dry_run:
            return True
        if plan.obstacles and not request.force:
            raise StateUnavailable(
                "nothing was done: " + "; ".join(plan.obstacles),
                hint="choose a later state, or --force: such replicas stop serving until `ekko restore` (or `rewind`)",
            )
        entry = AuditEntry(
            request.model, "rollback", actor(), request.reason, int(time.time() * 1e6), {"to": str(plan.to)}
        )
        start = time.monotonic()
        opened = intervene(central, catalogue, model, returning(plan.to), entry, known=history)
        void = EpochRange(plan.to, opened.epoch - 1)
        tell(
            f"{time.monotonic() - start:7.3f} s  barrier {opened.epoch} is in the log: void {void.first} to {void.last}"
        )
        return _await(Acknowledgements(model, void), regions, start, request.timeout_s, tell) and not away
    finally:
        regions.close()
        catalogue.close()


def _tell_plan(plan: RollbackPlan, tell: Tell) -> None:
    tell(f"return to state {plan.to}: epochs {plan.void.first} to {plan.void.last} are taken back")
    tell(f"generation {plan.generation} begins: blocks of earlier ones are rejected from there on")
    for obstacle in plan.obstacles:
        tell(f"obstacle: {obstacle}")


def _await(acknowledgements: Acknowledgements, regions: Regions, start: float, timeout_s: float, tell: Tell) -> bool:
    while True:
        now = regions.now()
        for one in acknowledgements.take(now):
            rows = "" if one.rows is None else f"  {one.rows} rows"
            tell(f"{time.monotonic() - start:7.3f} s  {one.stage:8}  {one.region}/{one.replica}{rows}")
        missing = acknowledgements.missing(now, time.time())
        if not missing:
            return _everywhere(acknowledgements, now, tell)
        if time.monotonic() - start > timeout_s:
            tell(f"no durable acknowledgement within {timeout_s} s from {', '.join(missing)}")
            return False
        regions.await_news(_WAIT_S)


def _everywhere(acknowledgements: Acknowledgements, now: Mapping[str, Region], tell: Tell) -> bool:
    """Whether every region has a replica that has acknowledged; tells of those that nobody waits for."""
    silent = acknowledgements.silent(now, time.time())
    if silent:
        tell(f"not heard: {', '.join(silent)}; what is down undoes before it serves again, stop what still answers")
    return not acknowledgements.without(now)
