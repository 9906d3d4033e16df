"""What a state manager tells Prometheus."""

from prometheus_client import Gauge

from ekko.schemas.epochs import Verdict
from ekko.streams.manager.model import ModelManager

LEADS = Gauge("ekko_manager_leads", "1 where this process writes the barriers, 0 where it stands by.", ["model"])
EPOCH = Gauge("ekko_manager_epoch", "Epoch of the last barrier known.", ["model"])
GENERATION = Gauge("ekko_manager_generation", "Rollbacks of the model so far.", ["model"])
BARRIER_AGE = Gauge("ekko_manager_barrier_age_seconds", "Age of the last barrier known.", ["model"])
EPOCH_INTERVAL = Gauge("ekko_manager_epoch_interval_seconds", "The setting epoch_interval_s.")
OVERDUE = Gauge(
    "ekko_manager_barrier_overdue", "1 if no barrier came for a quarter of the shortest retention.", ["model"]
)
STATES = Gauge("ekko_manager_states", "Published states.", ["model", "verdict"])
NEEDS_A_PERSON = Gauge("ekko_manager_needs_a_person", "1 once policy has nothing left that it may do.", ["model"])
SERVES_PINNED = Gauge("ekko_manager_serves_pinned", "1 while readers get a pinned state for live rows.", ["model"])
FAILING = Gauge("ekko_manager_failing", "1 while the last thing tried has failed; the log says why.", ["model"])

_OF_A_MODEL = (LEADS, EPOCH, GENERATION, BARRIER_AGE, OVERDUE, NEEDS_A_PERSON, SERVES_PINNED, FAILING)


def show(manager: ModelManager, now_s: float) -> None:
    """Set a model's gauges to what is true at `now_s`, seconds since 1970."""
    name = manager.model.name
    LEADS.labels(name).set(manager.tenure is not None)
    OVERDUE.labels(name).set(manager.silence.overdue)
    NEEDS_A_PERSON.labels(name).set(bool(manager.alarm))
    FAILING.labels(name).set(manager.failure is not None)
    if manager.barrier_s:
        BARRIER_AGE.labels(name).set(max(0.0, now_s - manager.barrier_s))
    if manager.tenure is None:
        return
    barrier, states = manager.tenure.barrier, list(manager.tenure.states.values())
    EPOCH.labels(name).set(barrier.epoch)
    GENERATION.labels(name).set(barrier.generation)
    SERVES_PINNED.labels(name).set(barrier.serves_pinned)
    for verdict in Verdict:
        STATES.labels(name, verdict.value).set(sum(state.verdict is verdict for state in states))


def forget(model: str) -> None:
    """A model is gone."""
    for gauge in _OF_A_MODEL:
        gauge.labels(model)
        gauge.remove(model)
    for verdict in Verdict:
        STATES.labels(model, verdict.value)
        STATES.remove(model, verdict.value)
