"""What is concluded from signals: sums by hand, and a tail that goes on where it was."""

import pytest

from ekko.ops.status.signals import (
    FIRST_OFFSETS,
    KEPT_S,
    LATEST_S,
    WINDOW_S,
    Heard,
    Pending,
    QualityKey,
    SignalTail,
    pending,
    quality,
)
from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import TopicMissing
from ekko.schemas.signals import PENDING_BYTES, Signal
from ekko.streams.health.buckets import Total
from tests.ops.signals_log import Log


def served(metric: str, value: float, count: int, cohort: str = "live", region: str = "east") -> Heard:
    return Heard(1_000, Signal("m", region, f"serving/{region}", metric, value, count, 1, cohort))


def waits(at_s: float, instance: str, rows: int, nbytes: float, region: str = "east") -> Heard:
    signal = Signal("m", region, f"fanout/{instance}", PENDING_BYTES, nbytes, rows, 1)
    return Heard(int(at_s * 1e3), signal)


def test_quality_is_summed_by_cohort_region_and_metric():
    heard = [
        served("log_loss", 60.0, 100),
        served("log_loss", 20.0, 100),
        served("log_loss", 70.0, 100, "baseline"),
        served("auc", 0.75, 1, region="west"),
    ]
    found = quality(heard)
    assert list(found) == [QualityKey("m", "east", "log_loss"), QualityKey("m", "west", "auc")]
    losses = found[QualityKey("m", "east", "log_loss")]
    assert (losses.live, losses.baseline) == (Total(80.0, 200), Total(70.0, 100))
    assert losses.live.mean == pytest.approx(0.4)
    assert found[QualityKey("m", "west", "auc")].baseline == Total()


def test_requests_and_what_the_pipeline_measures_is_no_quality():
    store = Signal("m", "east", "store/0", "update_latency_ms", 12.0, 3, 1)
    assert quality([served("requests", 9.0, 9), waits(1.0, "a", 5, 400.0), Heard(1, store)]) == {}


def test_quality_is_that_of_the_last_while():
    def at(at_s: float, value: float) -> Heard:
        return Heard(int(at_s * 1e3), served("auc", value, 1).signal)

    heard = [at(100.0, 0.1), at(100.0 + WINDOW_S, 0.7), at(100.5 + WINDOW_S, 0.9)]
    assert quality(heard)[QualityKey("m", "east", "auc")].live == Total(1.6, 2)


def test_what_waits_is_the_last_word_of_every_instance():
    heard = [
        waits(1.0, "a", 900, 9e4),
        waits(2.0, "a", 5, 400.0),
        waits(2.0, "b", 7, 600.0),
        waits(2, "c", 1, 80, "west"),
    ]
    assert pending(heard) == {("east", "m"): Pending(12, 1_000), ("west", "m"): Pending(1, 80)}


def test_an_instance_that_is_gone_holds_nothing_back():
    heard = [waits(1.0, "gone", 900, 9e4), waits(1.5 + LATEST_S, "a", 5, 400.0)]
    assert pending(heard) == {("east", "m"): Pending(5, 400)}


def test_the_tail_goes_on_where_it_was_and_forgets_what_is_old():
    log = Log()
    tail = SignalTail(log)
    assert tail.read(["m"]) == []
    for number in range(3):
        log.write(100.0 + number, topics.signals("m"), encode(Signal("m", "east", "serving/x", "auc", number, 1, 1)))
    log.write(102.5, topics.signals("m"), b"no signal at all")
    assert [(each.at_ms, each.signal.value) for each in tail.read(["m"])] == [(100_000, 0), (101_000, 1), (102_000, 2)]
    log.write(101.5 + KEPT_S, topics.signals("m"), encode(Signal("m", "east", "serving/x", "auc", 3.0, 1, 1)))
    assert [each.signal.value for each in tail.read(["m"])] == [2, 3]
    assert tail.read([]) == []


def test_of_a_long_log_only_the_end_is_read():
    log = Log()
    for number in range(FIRST_OFFSETS + 5):
        log.write(100.0, topics.signals("m"), encode(Signal("m", "east", "serving/x", "auc", number, 1, 1)))
    heard = SignalTail(log).read(["m"])
    assert (len(heard), heard[0].signal.value) == (FIRST_OFFSETS, 5)


def test_a_model_without_its_topic_is_said():
    with pytest.raises(TopicMissing):
        SignalTail(Log()).read(["other"])
