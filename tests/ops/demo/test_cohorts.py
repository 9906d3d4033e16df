"""What serving tells of quality: new interactions, both cohorts, nothing where a region is away."""

from dataclasses import replace

import numpy as np
import pytest

from ekko.ops.demo.cohorts import AHEAD_S, SAMPLE, SAMPLES_A_SECOND, Upcoming, baseline_state, report
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.replicas import ReplicaState, ShardPosition

STREAM = synthetic_interactions(1, SyntheticShape(interactions=2_000, users=20, items=30, periods=2))
RATE = 400.0


def state(complete: int, bound: int = 0) -> ReplicaState:
    return ReplicaState(
        "m", 1, 2, {0: ShardPosition(complete=complete + 1), 1: ShardPosition(complete=complete)}, bound=bound
    )


class Client:
    """A region: live rows are zeros, those of the past are ones, and some states are gone."""

    region = "east"
    gone = False

    def lookup(self, _table, keys, as_of=None):
        if as_of is not None and self.gone:
            raise StateUnavailable("withdrawn")
        values = np.full((len(keys), 4), 0.0 if as_of is None else 1.0, np.float32)
        return type("Rows", (), {"values": values, "state": state(9)})


class Reporter:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.samples = {}

    def sample(self, metric, values, cohort="live"):
        self.samples[metric, cohort] = values


def test_samples_lie_ahead_of_the_trainer_and_move_on_at_its_pace():
    upcoming = Upcoming(STREAM, RATE)
    upcoming.follow(100)
    first, second = upcoming.take(), upcoming.take()
    start = 100 + int(AHEAD_S * RATE)
    pace = int(RATE / SAMPLES_A_SECOND)
    assert np.array_equal(first.labels, STREAM.labels[start : start + SAMPLE])
    assert np.array_equal(second.labels, STREAM.labels[start + pace : start + pace + SAMPLE])


def test_the_stream_ends():
    upcoming = Upcoming(STREAM, RATE)
    upcoming.follow(len(STREAM) - int(AHEAD_S * RATE) - 10)
    assert len(upcoming.take().labels) == 10
    assert upcoming.take() is None


@pytest.mark.parametrize(("held", "expected"), [(state(9), 5), (state(4), None), (state(9, bound=6), None)])
def test_the_baseline_is_some_epochs_old_and_can_be_read(held: ReplicaState, expected: int | None):
    assert baseline_state(held) == expected


def test_both_cohorts_are_reported_for_the_same_interactions():
    reporter = Reporter()
    report(Upcoming(STREAM, RATE).take(), Client(), reporter)
    live, baseline = reporter.samples["log_loss", "live"], reporter.samples["log_loss", "baseline"]
    assert live == pytest.approx(np.log(2))
    assert len(baseline) == len(live)
    assert not np.allclose(baseline, live)
    assert reporter.samples["auc", "live"] == pytest.approx(0.5), "equal scores"
    assert 0 <= reporter.samples["auc", "baseline"] <= 1


def test_a_sample_of_one_label_has_no_auc():
    batch = Upcoming(STREAM, RATE).take()
    reporter = Reporter()
    report(replace(batch, labels=np.ones_like(batch.labels)), Client(), reporter)
    assert sorted(reporter.samples) == [("log_loss", "baseline"), ("log_loss", "live")]


def test_a_state_that_is_gone_leaves_the_live_cohort():
    reporter, client = Reporter(), Client()
    client.gone = True
    report(Upcoming(STREAM, RATE).take(), client, reporter)
    assert sorted(reporter.samples) == [("auc", "live"), ("log_loss", "live")]
