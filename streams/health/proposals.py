"""Verdicts on their way from the monitor to the state manager: signals of the metric 'verdict'."""

from dataclasses import dataclass

from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Signal
from ekko.streams.health.verdict import Judgement

METRIC = "verdict"
_LEVELS = (Verdict.HEALTHY, Verdict.SUSPECT, Verdict.CORRUPT)
_SOURCE = "monitor/"


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the monitor thinks of a model; `since_us` is when the present episode began, microseconds since 1970."""

    verdict: Verdict
    since_us: int
    reason: str


def to_signal(model: str, judgement: Judgement) -> Signal:
    """A judgement as it travels: level as value, reason behind the source, the episode's start as event time."""
    level = float(_LEVELS.index(judgement.verdict))
    return Signal(model, "", _SOURCE + judgement.reason, METRIC, level, 1, int(judgement.since_s * 1e6))


def from_signal(signal: Signal) -> Proposal | None:
    """The proposal in a signal, None if it is another metric or no level that this version knows."""
    if signal.metric != METRIC or signal.value not in range(len(_LEVELS)):
        return None
    return Proposal(_LEVELS[int(signal.value)], signal.event_us, signal.source.removeprefix(_SOURCE))
