"""All models' health, bucket by bucket, once the watermark has passed a bucket."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor

from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Signal
from ekko.streams.health.buckets import Bucket, Total
from ekko.streams.health.detectors import Detector
from ekko.streams.health.proposals import to_signal
from ekko.streams.health.trainers import SilentTrainer, TrainerWatch, in_words
from ekko.streams.health.verdict import Health, Judgement, worst

COHORTS = ("live", "baseline")
_REPEAT_BUCKETS = 10
"""A healthy model is said to be so now and then, for managers that have just taken over."""

Read = Callable[[str, str, str, float], Total]
"""The total of (model, metric, cohort) in the bucket that begins at a time."""


@dataclass(frozen=True, slots=True)
class Track:
    """Detectors that wait equally long for what they look at.

    Attributes:
        grace_s: how long after its end a bucket is judged; what comes later is too late.
        metrics: what the detectors look at.
        detectors: makes a fresh set for one model.
    """

    grace_s: float
    metrics: frozenset[str]
    detectors: Callable[[], Sequence[Detector]]


class _Followed:
    """A track, how far it is, and what its detectors say of every model."""

    def __init__(self, track: Track, models: Iterable[str], bucket_s: float, now_s: float) -> None:
        self.metrics = track.metrics
        self.judged: dict[str, Judgement] = {}
        self._bucket_s, self._grace_s = bucket_s, track.grace_s
        self._health = {model: Health(track.detectors()) for model in models}
        self._next = floor((now_s - track.grace_s) / bucket_s)

    @property
    def watermark_s(self) -> float:
        """What is older is judged already."""
        return self._next * self._bucket_s

    def passed(self, now_s: float, bucket: Callable[[str, float], Bucket]) -> Iterator[int]:
        """Judge every bucket that the watermark has passed; numbers of the buckets, one after the other."""
        while (self._next + 1) * self._bucket_s + self._grace_s <= now_s:
            start_s = self.watermark_s
            self.judged = {model: health.update(bucket(model, start_s)) for model, health in self._health.items()}
            self._next += 1
            yield self._next - 1


class Board:
    """Judges every model in buckets of `bucket_s`.

    Args:
        track: what is judged first. slower: what waits longer, for labels that come late; judged by event time, too.
        now_s: seconds since 1970; earlier buckets are not judged.
    """

    def __init__(self, models: Iterable[str], track: Track, *slower: Track, bucket_s: float, now_s: float) -> None:
        self.late = 0
        self._trainers = {model: TrainerWatch() for model in models}
        self._silent_since_s: dict[str, float] = {}
        self._bucket_s = bucket_s
        self._first, *self._slower = (_Followed(each, self._trainers, bucket_s, now_s) for each in (track, *slower))
        self._metrics = track.metrics.union(*(each.metrics for each in slower))

    def follow(self, model: str, watch: TrainerWatch) -> None:
        """Judge the model's trainers by this watch from now on."""
        self._trainers[model] = watch

    def hear(self, signal: Signal) -> None:
        """Take in what a signal says about trainers; others are passed over."""
        if signal.model in self._trainers:
            self._trainers[signal.model].hear(signal)

    def accepts(self, signal: Signal) -> bool:
        """Whether a signal belongs into buckets and comes in time; what comes too late is counted in `late`."""
        if signal.metric not in self._metrics or signal.cohort not in COHORTS:
            return False
        tracks = (each for each in (self._first, *self._slower) if signal.metric in each.metrics)
        if all(signal.event_us / 1e6 < each.watermark_s for each in tracks):
            self.late += 1
            return False
        return True

    def silent(self) -> dict[str, Mapping[str, SilentTrainer]]:
        """Trainers that have fallen silent, by model."""
        return {model: watch.silent() for model, watch in self._trainers.items()}

    def judge(self, now_s: float, read: Read) -> list[Signal]:
        """Judge every bucket that the watermark has passed; what is to be told to the state manager."""

        def bucket(model: str, start_s: float) -> Bucket:
            return self._bucket(model, start_s, read)

        for track in self._slower:
            for _ in track.passed(now_s, bucket):
                pass  # what it says last holds until it says something else
        told: list[Signal] = []
        for number in self._first.passed(now_s, bucket):
            for model in self._trainers:
                said = (each.judged.get(model, Judgement()) for each in (self._first, *self._slower))
                judgement = self._with_silence(model, number * self._bucket_s, worst(said))
                if judgement.verdict is not Verdict.HEALTHY or number % _REPEAT_BUCKETS == 0:
                    told.append(to_signal(model, judgement))
        return told

    def _with_silence(self, model: str, start_s: float, judgement: Judgement) -> Judgement:
        """A silent trainer makes a model suspect and no more, for exactly as long as it is silent."""
        silent = self._trainers[model].silent()
        if not silent:
            self._silent_since_s.pop(model, None)
            return judgement
        since_s = self._silent_since_s.setdefault(model, start_s)
        if judgement.verdict is Verdict.HEALTHY:
            return Judgement(Verdict.SUSPECT, since_s, in_words(silent))
        return replace(judgement, reason=f"{judgement.reason}; {in_words(silent)}")

    def _bucket(self, model: str, start_s: float, read: Read) -> Bucket:
        totals = {
            (metric, cohort): total
            for metric in self._metrics
            for cohort in COHORTS
            if (total := read(model, metric, cohort, start_s)).count
        }
        return Bucket(start_s, totals)
