"""What is told at the end, and what a person sees in between."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ekko.ops.demo.incident import Incident
from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.poison import Phase
from ekko.ops.demo.regions import RegionView, rows_a_second
from ekko.ops.demo.report import conclusion
from ekko.ops.demo.source_sums import Published
from ekko.ops.demo.status import Comparison, RegionQuality, ServerStatus, ServingStatus, TrainerStatus
from ekko.ops.demo.summary import DemoSummary, mean_comparison, summarise
from ekko.ops.demo.verify import Verification
from ekko.ops.demo.view import render
from ekko.ops.status.sample import LaneFigures, LaneKey, Sample
from ekko.ops.status.signals import Pending
from ekko.schemas.blocks import Lane
from ekko.storage.serving.served import Percentiles, UpdateLatency


def quality(live: float, stale: float) -> RegionQuality:
    compared = Comparison(interactions=100, auc_live=live, auc_stale=stale, log_loss_live=0.6, log_loss_stale=0.7)
    return RegionQuality(run=compared, after_first_refresh=Comparison(), recent=compared, unserved=3)


def latency(p50: float | None, p99: float | None) -> UpdateLatency:
    return UpdateLatency("movies", Percentiles(1), Percentiles(1), Percentiles(2, p50=p50, p99=p99), Percentiles(0))


TRAINER = TrainerStatus(
    position=1200, finished=True, regions={"east": quality(0.72, 0.64), "west": quality(0.74, 0.62)}
)
PLAN = DemoPlan(
    folder=Path("unused"), bootstrap="unused", model="movies", stores={}, monitor_port=1, rate=500.0, seconds=60.0
)
VERIFICATION = Verification(
    last_state=9, middle_state=4, keys=50, published=Published(6000, 240, 7), rejected={"east": 0, "west": 0}
)


NOTHING_HAPPENED = Incident()


def summary_of(
    verification: Verification = VERIFICATION,
    west: UpdateLatency | None = None,
    trainer: TrainerStatus = TRAINER,
    incident: Incident = NOTHING_HAPPENED,
) -> DemoSummary:
    return summarise(
        verification,
        trainer,
        ServerStatus(regions={"east": ServingStatus(requests=7)}),
        {"east": latency(5.0, 20.0), "west": west or latency(4.0, 30.0)},
        incident=incident,
        plan=PLAN,
        dataset="MovieLens 100K",
        restarts={"broker": 1, "manager": 0},
    )


def test_the_json_has_what_is_promised():
    told = json.loads(summary_of().model_dump_json())
    assert told["bit_identical"] is True
    assert told["rows_published"] == 6000
    assert (told["update_latency_ms_p50"], told["update_latency_ms_p99"]) == (5.0, 30.0)
    assert (told["auc_live"], told["auc_stale"]) == pytest.approx((0.73, 0.63))
    assert told["restarts"] == {"broker": 1}
    assert told["regions"]["west"]["quality"]["unserved"] == 3


def poisoned(before: float, during: float, after: float) -> TrainerStatus:
    phases = {Phase.BEFORE: before, Phase.POISONED: during, Phase.RECOVERED: after}
    regions = {name: told.model_copy(update={"auc_by_phase": phases}) for name, told in TRAINER.regions.items()}
    return TRAINER.model_copy(update={"poisoned_at": 1_000.0, "regions": regions})


def test_a_poisoned_run_is_sound_when_a_rollback_helped():
    told = summary_of(trainer=poisoned(0.72, 0.3, 0.74), incident=Incident(1_009.5, 3))
    assert (told.poisoned, told.detection_s, told.rolled_back_to) == (True, 9.5, 3)
    assert (told.auc_before_poison, told.auc_poisoned, told.auc_recovered) == pytest.approx((0.72, 0.3, 0.74))
    assert told.sound
    assert "called corrupt after 9.5 s, rolled back to state 3" in conclusion(told)


def test_a_poisoned_run_without_a_rollback_or_a_recovery_is_not_sound():
    unnoticed = summary_of(trainer=poisoned(0.72, 0.3, 0.74))
    assert not unnoticed.sound
    assert "never found out, not rolled back" in conclusion(unnoticed)
    assert not summary_of(trainer=poisoned(0.72, 0.5, 0.4), incident=Incident(1_009.5, 3)).sound


def test_a_run_without_poison_says_so():
    told = summary_of()
    assert (told.poisoned, told.detection_s, told.auc_poisoned) == (False, None, None)
    assert told.sound


def test_a_region_without_a_measurement_is_no_zero():
    assert summary_of(west=latency(None, None)).update_latency_ms_p99 is None
    assert mean_comparison([Comparison(auc_live=0.7), Comparison()]).auc_live is None


def test_words_say_what_was_compared_or_what_differs():
    assert "bit for bit: now, as of state 9, as of state 4" in conclusion(summary_of())
    wrong = Verification(rejected={"east": 0, "west": 0}, problems=["west now: 3 rows differ"])
    assert "NOT identical:\n  west now: 3 rows differ" in conclusion(summary_of(wrong))


def test_the_table_shows_a_region_that_is_away_as_gaps():
    regions = {
        "east": RegionView(
            complete=8,
            lanes={
                Lane.BULK: LaneFigures(500, 3, Percentiles(9, p50=5.0, p99=20.0)),
                Lane.EXPRESS: LaneFigures(7, 1, None),
            },
            rows_a_second=812.4,
            pending=Pending(2_500, 170_000),
            quality=quality(0.72, 0.64),
            serving=ServingStatus(requests=1234),
        ),
        "west": RegionView(),
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(TRAINER, regions, {"store-west": 2, "broker": 0}, 20.0))
    text = console.export_text()
    assert "restarts: store-west 2x" in text

    def cells(name: str) -> list[str]:
        row = next(line for line in text.splitlines() if name in line)
        return [cell.strip() for cell in row.split("│")[2:4]]

    assert cells("complete at model state") == ["8", "-"]
    assert cells("publish to readable, bulk, p50 ms") == ["5.0", "-"]
    assert cells("publish to readable, bulk, p99 ms") == ["20.0", "-"]
    assert cells("publish to readable, express, p99 ms") == ["-", "-"]
    assert cells("rows/s") == ["812", "-"]
    assert cells("lane records behind") == ["4", "-"]
    assert cells("rows that wait for bandwidth") == ["2,500", "-"]
    assert cells("AUC with live rows") == ["0.7200", "-"]
    assert cells("AUC with rows refreshed every 20 s") == ["0.6400", "-"]
    assert cells("log loss with live rows") == ["0.6000", "-"]
    assert cells("log loss with rows refreshed every 20 s") == ["0.7000", "-"]
    assert cells("rankings served") == ["1,234", "0"]


def test_rows_a_second_need_both_lanes_of_both_samples():
    def sample(at_s: float, **lanes: float) -> Sample:
        told = {LaneKey("east", "0", "movies", Lane(lane)): LaneFigures(rows, 0, None) for lane, rows in lanes.items()}
        return Sample(at_s, told)

    assert rows_a_second("east", sample(12.0, bulk=900, express=30), sample(10.0, bulk=100, express=10)) == 410
    assert rows_a_second("east", sample(12.0, bulk=900, express=30), sample(10.0, bulk=100)) is None
    assert rows_a_second("east", sample(12.0), sample(10.0, bulk=100)) is None
