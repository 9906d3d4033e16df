"""`ekko top`: rates and gaps by hand, and one frame of a real deployment."""

import io
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from ekko.ops.broker import Broker
from ekko.ops.status.facts import Facts
from ekko.ops.status.live import lanes, qualities, rate, render, waiting
from ekko.ops.status.sample import LaneFigures, LaneKey, Sample
from ekko.ops.status.signals import Pending, Quality, QualityKey
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import TableDeclaration
from ekko.storage.client.reporter import SignalReporter
from ekko.storage.serving.served import Percentiles
from ekko.streams.health.buckets import Total
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.waiting import until_true

EXPRESS = LaneKey("east", "0", "ctr", Lane.EXPRESS)
BULK = LaneKey("east", "0", "ctr", Lane.BULK)


def sample(at_s: float, rows: float) -> Sample:
    told = {
        BULK: LaneFigures(7, 3, None),
        EXPRESS: LaneFigures(rows, 0, Percentiles(9, p50=4.25, p99=31.0)),
    }
    return Sample(at_s, told)


def test_rates_are_between_two_samples():
    assert rate(EXPRESS, sample(12.0, 1_500), sample(10.0, 500)) == 500
    assert rate(EXPRESS, sample(12.0, 1_500), None) is None


def test_a_replica_that_was_started_again_has_no_rate_yet():
    assert rate(EXPRESS, sample(12.0, 20), sample(10.0, 500)) is None
    assert rate(EXPRESS, sample(12.0, 20), Sample(10.0, {})) is None


def test_what_is_not_known_is_a_dash():
    bulk, express = lanes(sample(12.0, 1_500), sample(10.0, 500))
    assert (bulk["lane"], bulk["p50 ms"], bulk["lag records"]) == ("bulk", "-", "3")
    assert (express["p50 ms"], express["p99 ms"], express["rows/s"]) == ("4.2", "31.0", "500")


def test_what_waits_and_quality_are_rows_of_their_own():
    measured = Sample(
        12.0,
        {},
        quality={QualityKey("ctr", "east", "log_loss"): Quality(Total(50.0, 100), Total())},
        pending={("east", "ctr"): Pending(1_500, 2_500_000)},
    )
    (waits,) = waiting(measured)
    assert (waits["region"], waits["pending rows"], waits["pending MB"]) == ("east", "1,500", "2.5")
    (row,) = qualities(measured)
    assert (row["live"], row["baseline"], row["live samples"]) == ("0.5000", "-", "100")


def test_who_does_not_answer_is_named():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(Facts((), (), {}), Sample(1.0, {}, silent=("10.0.0.7:7070",)), None, 0))
    assert "no answer from 10.0.0.7:7070" in console.export_text()


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TableDeclaration("embedding", 4)) as running:
        yield running


def cells(output: str, title: str) -> list[list[str]]:
    """The rows of one table of a frame: its lines begin with a blank, titles do not."""
    lines = output.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(title)), len(lines)) + 2
    return [line.split() for line in takewhile(lambda line: line.startswith(" "), lines[start:])]


def test_one_frame_of_a_deployment(deployment: Deployment, tmp_path: Path) -> None:
    east, west = deployment.regions
    settings = tmp_path / "slow.toml"
    settings.write_text(f'[region."{west}"]\nbandwidth_bytes_per_s = 2_000\n')
    deployment.fanouts[west].end()
    deployment.run("fanout-slow", "fanout", "--region", west, "--config", str(settings))
    for region in deployment.regions:  # what a store reads to catch up after its start is no update latency
        with deployment.client(region) as client:
            deployment.wait(f"{region} serves", lambda client=client: bool(client.state().shards))
    with deployment.client(east) as client, SignalReporter(client) as reporter:
        reporter.sample("auc", [0.75, 0.85])
        reporter.sample("auc", [0.5], cohort="baseline")
    # Before anything else that takes time: a sample is shown for half a minute.
    until_true(lambda: check_quality(frame(deployment), deployment.model.name, east))

    rng = np.random.default_rng(3)
    with Publisher(deployment.model.name, bootstrap=deployment.bootstrap) as publisher:
        publisher.publish("embedding", np.arange(20_000), rng.normal(0, 1, (20_000, 4)).astype(np.float32))
    expected = deployment.expected()
    deployment.wait("rows are readable in the east", lambda: deployment.checksum_of(east) == expected)
    deployment.wait("the frame knows what waits", lambda: waiting_in(deployment, west) > 0)
    until_true(lambda: check_lanes(frame(deployment), deployment))

    deployment.stores[west].kill()
    output = frame(deployment)
    assert f"no answer from {deployment.addresses[west]}" in output
    assert east in output


def frame(deployment: Deployment) -> str:
    return deployment.ekko("top", "--once").stdout


def check_quality(output: str, model: str, region: str) -> None:
    """A busy machine sends samples late."""
    assert [row for row in cells(output, "quality,") if row[0] == model] == [
        [model, region, "auc", "0.8000", "0.5000", "2", "1"]
    ], output


def check_lanes(output: str, deployment: Deployment) -> None:
    """Every replica has answered, in the half second that it has for that, and nothing waits in the east any more."""
    east, west = deployment.regions
    mine = [row for row in cells(output, "lanes:") if row[0] in deployment.regions]
    assert [(row[0], row[3]) for row in mine] == [
        (region, lane) for region in (east, west) for lane in ("bulk", "express")
    ], output
    assert any(row[5] != "-" for row in mine if row[0] == east), "no p99"
    assert [row for row in cells(output, "fan-outs:") if row[0] == east] == [
        [east, deployment.model.name, "0", "0.0"]
    ], output
    assert "no answer" not in output


def waiting_in(deployment: Deployment, region: str) -> int:
    """Pending rows by `ekko top`."""
    rows = cells(frame(deployment), "fan-outs:")
    return sum(int(row[2].replace(",", "")) for row in rows if row[0] == region)
