"""Detectors, hysteresis, proposals: on seeded streams of buckets, good and bad."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Signal
from ekko.streams.health.buckets import Bucket, Total
from ekko.streams.health.detectors import Detector, GuardBand, Jump, Rate
from ekko.streams.health.drift import Drift
from ekko.streams.health.proposals import from_signal, to_signal
from ekko.streams.health.standard import standard_detectors
from ekko.streams.health.verdict import Health, Hysteresis, Judgement

LOSS = "log_loss"


def bucket(second: float, **means: float) -> Bucket:
    """One bucket with 100 observations a metric; `loss_base` is the baseline cohort's."""
    totals = {}
    for name, mean in means.items():
        metric, _, cohort = name.partition("__")
        totals[metric, cohort or "live"] = Total(mean * 100, 100)
    return Bucket(second, totals)


def first_alarm(detector: Detector, means: Iterable[float], metric: str = LOSS) -> int | None:
    for second, mean in enumerate(means):
        if detector.update(bucket(second, **{metric: mean})):
            return second
    return None


def noisy(seed: int, level: float, seconds: int, noise: float = 0.05) -> list[float]:
    means: list[float] = (level + noise * np.random.default_rng(seed).normal(size=seconds)).tolist()
    return means


def test_the_guard_band_compares_the_cohorts() -> None:
    band = GuardBand(LOSS, band=0.1, window=2, min_count=200)
    assert band.update(bucket(0, log_loss=0.9, log_loss__baseline=0.5)) is None, "too few observations"
    said = band.update(bucket(1, log_loss=0.9, log_loss__baseline=0.5))
    assert said == "log_loss is 0.9 live and 0.5 at the baseline"
    for second in (2, 3):
        last = band.update(bucket(second, log_loss=0.54, log_loss__baseline=0.5))
    assert last is None
    for second in (4, 5):
        last = band.update(bucket(second, log_loss=0.1, log_loss__baseline=0.5))
    assert last is None, "better is no alarm"


def test_a_metric_of_which_more_is_better_alarms_when_it_falls() -> None:
    band = GuardBand("auc", band=0.1, window=1, min_count=10, higher_is_better=True)
    assert band.update(bucket(0, auc=0.6, auc__baseline=0.8)) is not None
    assert band.update(bucket(1, auc=0.9, auc__baseline=0.8)) is None


def test_a_mean_that_is_no_number_is_an_alarm() -> None:
    band = GuardBand(LOSS, window=1, min_count=10)
    assert band.update(bucket(0, log_loss=float("nan"), log_loss__baseline=0.5)) is not None
    assert Jump(LOSS).update(bucket(0, log_loss=float("inf"))) == "log_loss is inf"


@pytest.mark.parametrize("seed", range(10))
def test_drift_tells_a_rise_soon_and_noise_never(seed: int) -> None:
    assert first_alarm(Drift(LOSS), noisy(seed, 0.6, 600)) is None
    seconds = first_alarm(Drift(LOSS), noisy(seed, 0.6, 60) + noisy(seed + 100, 0.8, 30))
    assert seconds is not None
    assert 60 <= seconds <= 65


def test_drift_ends_when_the_mean_is_back_and_gets_used_to_what_stays() -> None:
    drift = Drift(LOSS, hold=5)
    assert first_alarm(drift, [0.6] * 30 + [0.9] * 10) is not None
    assert drift.update(bucket(50, log_loss=0.6)) is None
    drift = Drift(LOSS, hold=5)
    said = [drift.update(bucket(second, log_loss=mean)) for second, mean in enumerate([0.6] * 30 + [0.9] * 60)]
    assert sum(text is not None for text in said) == 5


def test_norms_that_explode() -> None:
    assert first_alarm(Jump("gradient_norm"), [1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 50.0], "gradient_norm") == 6
    assert first_alarm(Jump("gradient_norm"), [1.0, 1.2, 50.0], "gradient_norm") is None, "too little history"


def test_rates_make_suspect_only() -> None:
    rate = Rate("gradient_norm", min_history=3)
    for second in range(5):
        assert rate.update(bucket(second, gradient_norm=1.0)) is None
    many = Bucket(6, {("gradient_norm", "live"): Total(1, 5_000)})
    assert rate.update(many) == "5000 observations of gradient_norm, usually 100"
    assert not rate.grave


def rates(counts: Iterable[float]) -> list[Bucket]:
    return [Bucket(second, {("gradient_norm", "live"): Total(count, count)}) for second, count in enumerate(counts)]


def norms(means: Iterable[float]) -> list[Bucket]:
    return [bucket(second, gradient_norm=mean) for second, mean in enumerate(means)]


@pytest.mark.parametrize(("kind", "buckets"), [(Jump, norms), (Rate, rates)])
@pytest.mark.parametrize("seed", range(10))
def test_a_level_that_changed_for_good_is_told_at_once_and_in_time_becomes_usual(
    kind: type[Jump | Rate], buckets: Callable[[Iterable[float]], list[Bucket]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    changed, hold = int(rng.integers(12, 200)), int(rng.integers(1, 100))
    first = 10 ** rng.uniform(1, 3)
    second, third = first * rng.uniform(15, 1_000), first * 10_000_000
    levels = noisy(seed, first, changed, first / 20) + noisy(seed, second, 300, second / 20) + [third]
    detector = kind("gradient_norm", hold=hold)
    told = [each.start_s for each in buckets(levels) if detector.update(each) is not None]
    assert told == [*range(changed, changed + hold), changed + 300], "as long as it holds, and the next jump at once"


@pytest.mark.parametrize("kind", [Jump, Rate])
@pytest.mark.parametrize(("pattern", "alarms"), [("x.x", 40), ("x..", 200)])
def test_a_level_becomes_usual_that_most_buckets_have(kind: type[Jump | Rate], pattern: str, alarms: int) -> None:
    """A trainer that is faster now, and pauses now and then; and one that has outbursts, which stay an alarm."""
    levels = [100.0] * 60 + [{"x": 5_000.0, ".": 100.0}[mark] for mark in pattern * 200]
    detector = kind("gradient_norm", hold=40)
    buckets = norms(levels) if kind is Jump else rates(levels)
    assert sum(detector.update(each) is not None for each in buckets) == alarms


def test_what_is_no_number_never_becomes_usual() -> None:
    jump = Jump("gradient_norm", hold=3)
    assert all(jump.update(each) for each in norms([float("inf")] * 50))


def test_larger_steps_for_good_are_rolled_back_no_more_than_twice() -> None:
    """And then later states become healthy again."""
    health = Health(standard_detectors())
    said = [health.update(each) for each in norms([1.0] * 100 + [20.0] * 400)]
    assert len({one.since_s for one in said if one.verdict is Verdict.CORRUPT}) <= 2
    assert said[102].verdict is Verdict.CORRUPT, "as soon as ever"
    assert {one.verdict for one in said[170:]} == {Verdict.HEALTHY}


def test_a_faster_trainer_makes_suspect_for_a_minute() -> None:
    health = Health(standard_detectors())
    said = [health.update(each).verdict for each in rates([100.0] * 100 + [2_000.0] * 400)]
    assert said[100] is Verdict.SUSPECT
    assert set(said[170:]) == {Verdict.HEALTHY}
    assert Verdict.CORRUPT not in said


class Script:
    """A detector that says what it is told."""

    grave = True

    def __init__(self, alarms: str) -> None:
        self._alarms = iter(alarms)

    def update(self, bucket: Bucket) -> str | None:
        del bucket
        return "bad" if next(self._alarms) == "x" else None


def verdicts(alarms: str, hysteresis: Hysteresis) -> str:
    """First letters of the verdicts, bucket by bucket."""
    health = Health([Script(alarms)], hysteresis)
    return "".join(health.update(bucket(second, log_loss=1)).verdict[0] for second in range(len(alarms)))


def test_hysteresis() -> None:
    settings = Hysteresis(corrupt_after=3, clear_after=2, episode=100)
    assert verdicts("..x.x..x..", settings) == "hhsssshssh"
    assert verdicts("xxx..", settings) == "sscch"
    assert verdicts("xx.xx.xxx", settings) == "ssssssssc"


def test_an_episode_has_a_beginning_and_one_that_goes_on_begins_anew() -> None:
    health = Health([Script("..xxxxxxx")], Hysteresis(corrupt_after=2, clear_after=2, episode=4))
    since = [health.update(bucket(second, log_loss=1)).since_s for second in range(9)]
    assert since == [0, 0, 2, 2, 2, 2, 6, 6, 6]


def test_buckets_without_data_change_nothing() -> None:
    health = Health([Script("xxx......")], Hysteresis(corrupt_after=3, clear_after=2))
    for second in range(3):
        health.update(bucket(second, log_loss=1))
    for second in range(3, 7):
        assert health.update(Bucket(second, {})).verdict is Verdict.CORRUPT


def test_proposals_travel_as_signals() -> None:
    for verdict in (Verdict.HEALTHY, Verdict.SUSPECT, Verdict.CORRUPT):
        proposal = from_signal(to_signal("ctr", Judgement(verdict, 12.5, "why")))
        assert proposal is not None
        assert (proposal.verdict, proposal.since_us, proposal.reason) == (verdict, 12_500_000, "why")
    assert from_signal(Signal("ctr", "", "monitor/", "verdict", 7.0, 1, 0)) is None
    assert from_signal(Signal("ctr", "", "serving/", "log_loss", 1.0, 1, 0)) is None
