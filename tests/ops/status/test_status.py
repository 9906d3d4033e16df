"""`ekko status` over real processes: all well, then each kind of process killed, then started again."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ekko.ops.broker import Broker
from ekko.ops.findings import Level
from ekko.ops.status.judge import SILENT_S
from ekko.schemas import topics
from ekko.schemas.codec import Kind
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition
from tests.ops.deployment import EKKO, Deployment
from tests.waiting import until_true

NEWER = 2
"""A format version that this software does not know."""


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=TableDeclaration("embedding", 4)) as running:
        yield running


def status(deployment: Deployment, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = deployment.ekko("status", "--json", *arguments, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def problems(deployment: Deployment) -> list[str]:
    """What is said to be wrong with this test's own model and regions."""
    code, told = status(deployment)
    wrong = [each["text"] for each in told["findings"] if each["level"] == "problem"]
    assert code == bool(wrong)
    return own(deployment, wrong)


def found_here(deployment: Deployment) -> list[str]:
    """The same by the command's own code, in this process: each process of it takes a processor for a second."""
    return own(deployment, [found.text for found in deployment.findings() if found.level is Level.PROBLEM])


def own(deployment: Deployment, texts: list[str]) -> list[str]:
    return [text for text in texts if any(name in text for name in (deployment.model.name, *deployment.regions))]


def wait_until_well(deployment: Deployment) -> None:
    deployment.wait("all is well", lambda: not found_here(deployment) and not problems(deployment))


def check_all_is_listed(deployment: Deployment) -> None:
    east, west = deployment.regions
    _, told = status(deployment)
    lanes = {lane["region"]: lane for lane in told["regions"] if lane["model"] == deployment.model.name}
    assert [lanes[region]["ready"] for region in (east, west)] == ["1/1", "1/1"]
    assert all(lane["fan-outs"] == 1 for lane in lanes.values())
    replicas = {replica["region"]: replica["address"] for replica in told["replicas"]}
    assert {region: replicas[region] for region in (east, west)} == deployment.addresses


def check_what_is_missed(deployment: Deployment) -> None:
    """The store in the east, the fan-out in the west, and the manager."""
    east, west = deployment.regions
    missed = problems(deployment)
    for words in (
        f"region {east}: replica 0 ({deployment.addresses[east]}) was last heard",
        f"region {east}, model {deployment.model.name}: shard(s) 0,1,2 are held by no replica",
        f"region {west}: no fan-out is heard, the last one",
        f"model {deployment.model.name}: last barrier",
    ):
        assert any(text.startswith(words) for text in missed), f"{words!r} not in {missed}"
    assert not any(text.startswith(f"region {west}: replica") for text in missed)
    assert not any(text.startswith(f"region {east}: no fan-out") for text in missed)


def check_a_shard_stands_still(deployment: Deployment) -> None:
    still = standing(problems(deployment))
    assert len(still) == 2
    assert "upgrade this process" in still[0] or "format version" in still[0]
    examined = deployment.ekko("doctor", check=False)
    assert examined.returncode == 1
    assert f"{deployment.model.name}/1 stands still" in examined.stdout


def test_what_is_killed_is_missed_and_what_comes_back_is_not(deployment: Deployment) -> None:
    east, west = deployment.regions
    wait_until_well(deployment)
    until_true(lambda: check_all_is_listed(deployment))

    deployment.stores[east].kill()
    deployment.fanouts[west].kill()
    deployment.manager.kill()
    time.sleep(SILENT_S)
    until_true(lambda: check_what_is_missed(deployment))
    code, told = status(deployment, "--only", "monitor")
    assert (code, [each for each in told["findings"] if each["part"] != "monitor"]) == (0, [])

    for process in (deployment.stores[east], deployment.fanouts[west], deployment.manager):
        process.start()
    wait_until_well(deployment)

    halt(deployment, shard=1)
    deployment.wait("both fan-outs tell that a shard stands still", lambda: len(standing(found_here(deployment))) == 2)
    until_true(lambda: check_a_shard_stands_still(deployment))


def halt(deployment: Deployment, shard: int) -> None:
    """Write a record of a format that is newer than this software."""
    writer = deployment.kafka.writer()
    partition = Partition(topics.deltas(deployment.model.name), shard)
    writer.send(Output(partition, b"EK" + bytes([Kind.DELTA_BLOCK, NEWER]) + bytes(8)))
    assert writer.flush(120) == 0
    writer.close()


def standing(texts: list[str]) -> list[str]:
    return [text for text in texts if "/1 stands still" in text]


def test_a_part_that_does_not_exist_is_refused() -> None:
    refused = subprocess.run([*EKKO, "status", "--only", "stars"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "--only stars: no such part" in refused.stderr
