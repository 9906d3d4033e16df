"""What `ekko states` shows of a state: its age, its verdict, and how far each region has come with it."""

import json
from dataclasses import replace

import pytest

from ekko.ops.states_view import Overview
from ekko.schemas.epochs import ModelState, Verdict
from ekko.streams.manager.progress import RegionProgress

NOW_US = 10**15
MINUTE_US = 60_000_000


def state(epoch: int, age_us: int, verdict: Verdict = Verdict.CANDIDATE) -> ModelState:
    return ModelState("ctr", 0, epoch, 2, (10 * epoch, 11 * epoch), verdict, written_us=NOW_US - age_us)


STATES = [
    replace(state(3, 3 * 86_400_000_000, Verdict.HEALTHY), pinned=True),
    state(7, 5 * MINUTE_US, Verdict.HEALTHY),
    replace(state(8, 90_000_000, Verdict.SUSPECT), reason="log_loss has risen"),
    state(9, 7_000_000),
]
REGIONS = {
    "east": RegionProgress(readable=8, durable=7, missing=(), bound=0),
    "north": None,
    "west": RegionProgress(readable=0, durable=0, missing=(1,), bound=0),
}
OVERVIEW = Overview(STATES, 3, REGIONS)


def test_every_state_has_its_verdict_age_and_each_regions_completeness() -> None:
    header, *lines = OVERVIEW.table(3, NOW_US).splitlines()
    assert header.split() == ["state", "generation", "verdict", "age", "offsets", "east", "north", "west", "reason"]
    told = [" ".join(line.split()) for line in lines]
    missing = "unreachable no replica of shards 1"
    assert told == [
        f"3 2 healthy (pinned, served) 3 d 30 33 durable {missing}",
        f"7 2 healthy 5 min 70 77 durable {missing}",
        f"8 2 suspect 90 s 80 88 readable {missing} log_loss has risen",
        f"9 2 candidate 7 s 90 99 not yet {missing}",
    ]


def test_programs_get_the_same() -> None:
    lines = [json.loads(line) for line in OVERVIEW.json_lines(2).splitlines()]
    assert [(line["state"], line["verdict"], line["served"]) for line in lines] == [
        (3, "healthy", True),
        (8, "suspect", False),
        (9, "candidate", False),
    ]
    assert [line["regions"]["east"] for line in lines] == ["durable", "readable", "not yet"]
    assert lines[1]["written_us"] == NOW_US - 90_000_000


@pytest.mark.parametrize(("age_us", "told"), [(119_000_000, "119 s"), (120_000_000, "2 min"), (7_200_000_000, "2 h")])
def test_ages(age_us: int, told: str) -> None:
    assert f" {told} " in Overview([state(1, age_us)], None, {}).table(1, NOW_US)


def test_without_states_it_says_what_is_missing() -> None:
    assert "is `ekko manager` running?" in Overview([], None, {}).table(5, NOW_US)
