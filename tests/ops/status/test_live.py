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
from ekko.ops.status.live import lanes, rate, render
from ekko.ops.status.sample import FanoutFigures, LaneFigures, LaneKey, Sample, fanout_figures
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import TableDeclaration
from ekko.storage.serving.served import Percentiles
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.streams.store_child import free_port

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


def test_groups_of_a_fanout_are_summed_and_the_slowest_tells_the_lag():
    text = (
        "# TYPE ekko_fanout_pending_rows gauge\n"
        'ekko_fanout_pending_rows{region="east",model="ctr",group="0"} 5.0\n'
        'ekko_fanout_pending_rows{region="east",model="ctr",group="1"} 7.0\n'
        "# TYPE ekko_fanout_lag_seconds gauge\n"
        'ekko_fanout_lag_seconds{region="east",model="ctr",group="0"} 0.5\n'
        'ekko_fanout_lag_seconds{region="east",model="ctr",group="1"} 0.25\n'
    )
    assert fanout_figures(text) == {("east", "ctr"): FanoutFigures(12.0, 0.5)}


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
    start = next(number for number, line in enumerate(lines) if line.startswith(title)) + 2
    return [line.split() for line in takewhile(lambda line: line.startswith(" "), lines[start:])]


@pytest.mark.timeout(240)
def test_one_frame_of_a_deployment(deployment: Deployment) -> None:
    east, west = deployment.regions
    port = free_port()
    deployment.fanouts[east].end()
    deployment.run("fanout-metrics", "fanout", "--region", east, "--metrics-port", str(port))
    for region in deployment.regions:  # what a store reads to catch up after its start is no update latency
        with deployment.client(region) as client:
            deployment.wait(f"{region} serves", lambda client=client: bool(client.state().shards))
    with Publisher(deployment.model.name, bootstrap=deployment.bootstrap) as publisher:
        publisher.publish("embedding", np.arange(500), np.ones((500, 4), np.float32))
    deployment.wait_exact("rows are readable")

    output = deployment.ekko("top", "--once", "--fanout-metrics", f"127.0.0.1:{port}").stdout
    mine = [row for row in cells(output, "lanes:") if row[0] in deployment.regions]
    assert [(row[0], row[3]) for row in mine] == [
        (region, lane) for region in (east, west) for lane in ("bulk", "express")
    ], output
    assert all(any(row[5] != "-" for row in mine if row[0] == region) for region in (east, west)), "no p99"
    pending = [row for row in cells(output, "fan-outs") if row[0] == east]
    assert [row[1:3] for row in pending] == [[deployment.model.name, "0"]], output
    assert "no answer" not in output

    deployment.stores[west].kill()
    output = deployment.ekko("top", "--once").stdout
    assert f"no answer from {deployment.addresses[west]}" in output
    assert east in output
