"""From alarms to a verdict, with hysteresis: healthy -> suspect -> corrupt, and slowly back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ekko.schemas.epochs import Verdict
from ekko.streams.health.buckets import Bucket
from ekko.streams.health.detectors import Detector


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How many buckets it takes.

    Attributes:
        corrupt_after: buckets in a row with a grave alarm.
        clear_after: buckets in a row with data and without any alarm.
        episode: buckets after which an alarm that goes on counts as a new episode: what was done was not enough.
    """

    corrupt_after: int = 3
    clear_after: int = 5
    episode: int = 30


@dataclass(frozen=True, slots=True)
class Judgement:
    """A model's health as of a bucket.

    Attributes:
        verdict: healthy, suspect or corrupt.
        since_s: start of the episode's first bucket with an alarm, seconds since 1970; 0 when healthy.
        reason: what is wrong, in words.
    """

    verdict: Verdict = Verdict.HEALTHY
    since_s: float = 0.0
    reason: str = ""


def worst(judgements: Iterable[Judgement]) -> Judgement:
    """The gravest of them, since its own beginning, with everything that is wrong in words."""
    wrong = [each for each in judgements if each.verdict is not Verdict.HEALTHY]
    if not wrong:
        return Judgement()
    gravest = next((each for each in wrong if each.verdict is Verdict.CORRUPT), wrong[0])
    return replace(gravest, reason="; ".join(each.reason for each in wrong))


class Health:
    """One model's health, judged bucket by bucket."""

    def __init__(self, detectors: Sequence[Detector], hysteresis: Hysteresis | None = None) -> None:
        self._detectors = detectors
        self._hysteresis = hysteresis or Hysteresis()
        self._judgement = Judgement()
        self._grave = self._quiet = self._buckets = 0

    def update(self, bucket: Bucket) -> Judgement:
        """The judgement after one more bucket; an empty one without an alarm changes nothing."""
        alarms = [(detector.grave, text) for detector in self._detectors if (text := detector.update(bucket))]
        if alarms:
            self._alarm(bucket, any(grave for grave, _ in alarms), "; ".join(text for _, text in alarms))
        elif bucket.totals:
            self._clear()
        return self._judgement

    def _alarm(self, bucket: Bucket, grave: bool, reason: str) -> None:
        self._quiet = 0
        self._grave = self._grave + 1 if grave else 0
        self._buckets += 1
        if self._judgement.verdict is Verdict.HEALTHY or self._buckets > self._hysteresis.episode:
            self._judgement = Judgement(Verdict.SUSPECT, bucket.start_s, reason)
            self._buckets = 1
        corrupt = self._grave >= self._hysteresis.corrupt_after or self._judgement.verdict is Verdict.CORRUPT
        verdict = Verdict.CORRUPT if corrupt else Verdict.SUSPECT
        self._judgement = Judgement(verdict, self._judgement.since_s, reason)

    def _clear(self) -> None:
        self._grave = 0
        self._quiet += 1
        if self._quiet >= self._hysteresis.clear_after:
            self._judgement, self._buckets = Judgement(), 0
