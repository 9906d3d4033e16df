"""When the trainer is bad, what it learns then, and what the log tells about it."""

import numpy as np
import pytest

from ekko.ops.demo.incident import Incident, read_incident
from ekko.ops.demo.model import Batch
from ekko.ops.demo.poison import Phase, flip_labels, phase_of, poison_at_s
from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Verdict
from ekko.schemas.errors import ConfigurationError
from ekko.schemas.signals import Signal
from tests.ops.signals_log import Log


@pytest.mark.parametrize(
    ("elapsed_s", "generation", "phase"),
    [
        (29.9, 0, Phase.BEFORE),
        (30.0, 0, Phase.POISONED),
        (300.0, 0, Phase.POISONED),
        (40.0, 1, Phase.RECOVERED),
        (10.0, 1, Phase.RECOVERED),
    ],
)
def test_the_poison_works_until_the_model_is_rolled_back(elapsed_s: float, generation: int, phase: Phase):
    assert phase_of(30.0, elapsed_s, generation) is phase


def test_without_poison_there_is_one_phase():
    assert {phase_of(None, elapsed_s, generation) for elapsed_s in (0, 1e6) for generation in (0, 1)} == {Phase.BEFORE}


def test_labels_are_the_wrong_way_round_and_nothing_else_changes():
    batch = Batch(np.uint64([1]), np.array([[0], [0]]), np.ones((2, 1), np.float32), np.float32([1, 0]))
    bad = flip_labels(batch)
    assert bad.labels.tolist() == [0, 1]
    assert bad.keys is batch.keys
    assert bad.index is batch.index


def test_a_run_too_short_to_recover_is_refused():
    assert poison_at_s(60) == 30
    with pytest.raises(ConfigurationError, match="too short") as refused:
        poison_at_s(20)
    assert "--seconds 50" in refused.value.hint


def test_an_incident_runs_from_the_first_corrupt_verdict_to_the_first_rollback():
    log = Log()
    log.write(1.0, topics.signals("m"), encode(Signal("m", "east", "serving/x", "requests", 1.0, 1, 1)))
    log.write(1.5, topics.signals("m"), b"no signal at all")
    log.verdict(107.0, Verdict.SUSPECT)
    log.verdict(109.5, Verdict.CORRUPT)
    log.verdict(110.5, Verdict.CORRUPT)
    log.rollback(110.0, 4)
    assert read_incident(log, "m", 100.0) == Incident(109.5, 4)


def test_what_was_before_the_poison_is_not_its_incident():
    log = Log()
    log.verdict(50.0, Verdict.CORRUPT)
    log.rollback(51.0, 2)
    assert read_incident(log, "m", 100.0) == Incident()
