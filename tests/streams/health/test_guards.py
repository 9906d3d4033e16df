"""The guards that need no labels: each on a stream that it must notice, and on one that it must not."""

import pytest

from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import OUT_OF_RANGE, OVERFLOWED, REFUSED
from ekko.streams.health.buckets import Bucket, Total
from ekko.streams.health.detectors import GRADIENTS
from ekko.streams.health.standard import NOT_FINITE, WATCHED, standard_detectors
from ekko.streams.health.verdict import Health

USUAL = {GRADIENTS: Total(100.0, 1_000)}
"""A second of updates as they usually are."""
QUIET_S = 90
WORSE = (Verdict.HEALTHY, Verdict.SUSPECT, Verdict.CORRUPT)

TROUBLES = {
    "NaN at the publisher": ({**USUAL, OUT_OF_RANGE: Total(200, 200)}, Verdict.CORRUPT, "200 out_of_range_rows"),
    "predictions that are no numbers": ({**USUAL, NOT_FINITE: Total(1, 1)}, Verdict.CORRUPT, "1 observations of"),
    "overflow": ({**USUAL, OVERFLOWED: Total(3, 3)}, Verdict.CORRUPT, "3 observations of overflowed_rows"),
    "norms explode": ({GRADIENTS: Total(5_000.0, 1_000)}, Verdict.CORRUPT, "gradient_norm is 5, usually 0.1"),
    "norms are no numbers": ({GRADIENTS: Total(float("nan"), 1_000)}, Verdict.CORRUPT, "gradient_norm is nan"),
    "too many updates": ({GRADIENTS: Total(2_000.0, 20_000)}, Verdict.SUSPECT, "20000 observations of gradient_norm"),
    "blocks are refused": ({**USUAL, REFUSED: Total(1, 1)}, Verdict.SUSPECT, "1 observations of refused_blocks"),
}

HARMLESS = {
    "as usual": USUAL,
    "one NaN in many": {**USUAL, OUT_OF_RANGE: Total(20, 20)},
    "norms five times as large": {GRADIENTS: Total(500.0, 1_000)},
    "five times as many updates": {GRADIENTS: Total(500.0, 5_000)},
    "fewer updates": {GRADIENTS: Total(1.0, 10)},
    "no updates at all": {},
}


def judged(then: dict[str, Total], seconds: int) -> tuple[Verdict, str]:
    """The worst verdict in a time of that after a time as usual, and its reason."""
    health, worst = Health(standard_detectors()), (Verdict.HEALTHY, "")
    for second in range(QUIET_S + seconds):
        totals = USUAL if second < QUIET_S else then
        judgement = health.update(Bucket(second, {(metric, "live"): total for metric, total in totals.items()}))
        if second < QUIET_S:
            assert judgement.verdict is Verdict.HEALTHY, "nothing is wrong yet"
        elif WORSE.index(judgement.verdict) > WORSE.index(worst[0]):
            worst = judgement.verdict, judgement.reason
    return worst


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_trouble_is_noticed(trouble: str) -> None:
    then, verdict, reason = TROUBLES[trouble]
    found, said = judged(then, 40)
    assert found is verdict
    assert reason in said


@pytest.mark.parametrize("harmless", HARMLESS)
def test_what_is_no_trouble_is_not(harmless: str) -> None:
    assert judged(HARMLESS[harmless], 40) == (Verdict.HEALTHY, "")


def test_every_metric_of_a_guard_reaches_the_board() -> None:
    assert {OUT_OF_RANGE, OVERFLOWED, REFUSED, NOT_FINITE, GRADIENTS} <= WATCHED
