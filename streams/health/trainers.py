"""Which trainers have fallen silent: judged one by one, by what fan-outs say that came from each."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ekko.schemas.signals import ENDED, PUBLISHED, TRAINER, TRAINERS_HEARD, Signal

ABOUT_TRAINERS = frozenset({PUBLISHED, TRAINERS_HEARD, ENDED})
"""Metrics that `TrainerWatch` follows."""

FACTOR = 5.0
"""So many times the longest of its latest pauses without a block, and a trainer is silent."""
LEAST_S = 30.0
"""But not before so many seconds: a trainer may save its parameters."""
GIVEN_UP_S = 600.0
"""After so many seconds of silence a trainer counts as gone for good, and is no reason for an alarm any more."""
RECALLED_S = 1_800.0
"""A watch that begins needs no older signals: enough to have seen the usual pauses of who is called silent now."""
_USUAL_PAUSES, _LEAST_PAUSES = 60, 5
_STEP_S = 5.0
"""Between two words of fan-outs no more than this passes: while none reads, nobody can tell who is silent."""
_MOST_TRAINERS = 1_000
"""A model with more of them loses sight of those that were heard longest ago."""


@dataclass(slots=True)
class _Trainer:
    """Times are seconds heard, see `TrainerWatch`; `published_us` is of the trainer's own clock."""

    heard_s: float
    published_us: int
    pauses: deque[float] = field(default_factory=lambda: deque(maxlen=_USUAL_PAUSES))


@dataclass(frozen=True, slots=True)
class SilentTrainer:
    """A trainer that has published before, has neither ended nor been blocked, and publishes no more.

    Attributes:
        silent_s: for how long, seconds.
        usual_s: the longest of its latest pauses, seconds.
    """

    silent_s: float
    usual_s: float


class TrainerWatch:
    """Follows the trainers of one model; pure.

    Time is counted in seconds heard: those in which some region's fan-out said that it reads. So neither a fan-out that
    is down nor a monitor that was makes a trainer silent, and no two clocks are compared. Whether blocks came before or
    after a trainer's end is told by the trainer's own clock. One that was heard fewer than five times has no usual
    pause, and is not judged.

    Args:
        since_us: when the first signal that it hears was written, microseconds since 1970. What was published before
            counts for nothing, however late it is read: of whom that is, the end may have been told before, too.
    """

    def __init__(self, since_us: int = 0) -> None:
        self._since_us = since_us
        self._now_s = 0.0
        self._newest_us = 0
        self._trainers: dict[str, _Trainer] = {}
        self._ended_us: dict[str, int] = {}

    def hear(self, signal: Signal) -> None:
        """Take in what a fan-out or a trainer says; metrics of other things are passed over."""
        name = signal.source.removeprefix(TRAINER)
        if signal.metric == TRAINERS_HEARD:
            passed_s = (signal.event_us - (self._newest_us or signal.event_us)) / 1e6
            self._newest_us = max(self._newest_us, signal.event_us)
            self._now_s += min(max(0.0, passed_s), _STEP_S)
        elif signal.metric == PUBLISHED:
            self._published(name, signal.event_us)
        elif signal.metric == ENDED:
            self._ended(name, signal.event_us)

    def silent(self) -> Mapping[str, SilentTrainer]:
        """Who is silent now, by name."""
        found: dict[str, SilentTrainer] = {}
        for name, trainer in list(self._trainers.items()):
            if len(trainer.pauses) < _LEAST_PAUSES:
                continue
            silent_s, usual_s = self._now_s - trainer.heard_s, max(trainer.pauses)
            allowed_s = max(LEAST_S, FACTOR * usual_s)
            if silent_s > allowed_s + GIVEN_UP_S:
                del self._trainers[name]
            elif silent_s > allowed_s:
                found[name] = SilentTrainer(silent_s, usual_s)
        return found

    def _published(self, name: str, published_us: int) -> None:
        if published_us <= max(self._ended_us.get(name, 0), self._since_us):
            return  # what it had sent before it ended, read late or once more
        known = self._trainers.pop(name, None)
        if known is None:
            known = _Trainer(self._now_s, published_us)
        elif published_us > known.published_us:  # other regions' fan-outs say the same, later ones say it again
            if self._now_s > known.heard_s:
                known.pauses.append(self._now_s - known.heard_s)
            known.heard_s, known.published_us = self._now_s, published_us
        self._trainers[name] = known  # those heard longest ago stand first
        if len(self._trainers) > _MOST_TRAINERS:
            del self._trainers[next(iter(self._trainers))]

    def _ended(self, name: str, ended_us: int) -> None:
        known = self._trainers.get(name)
        if known is not None and known.published_us <= ended_us:
            del self._trainers[name]
        self._ended_us[name] = max(ended_us, self._ended_us.pop(name, 0))
        if len(self._ended_us) > _MOST_TRAINERS:
            del self._ended_us[next(iter(self._ended_us))]


def in_words(silent: Mapping[str, SilentTrainer]) -> str:
    """Who is silent, for a verdict's reason; three of them at most, the longest silent first."""
    ordered = sorted(silent.items(), key=lambda item: -item[1].silent_s)
    told = [
        f"trainer {name} has published nothing for {each.silent_s:.0f} s, its longest pause was {each.usual_s:.0f} s"
        for name, each in ordered[:3]
    ]
    return "; ".join([*told, *([f"{len(ordered) - 3} more trainers are silent"] if len(ordered) > 3 else [])])
