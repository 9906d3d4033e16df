"""Rewind: which snapshot is chosen, and the whole road on real processes."""

from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.ops.rewind import choose
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import StateUnavailable
from ekko.schemas.replicas import LanePosition, ReplicaState, ShardPosition
from ekko.storage.disk.snapshots import SNAPSHOTS, Snapshot, read
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Bounds, Partition
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment

EXPRESS, BULK = Partition("ctr.east.express", 0), Partition("ctr.east.bulk", 0)
LANES = {EXPRESS: Bounds(10, 100), BULK: Bounds(0, 50)}


def snapshot(taken_s: int, express: int, bulk: int, bound: int) -> Snapshot:
    position = ShardPosition(express=LanePosition(express), bulk=LanePosition(bulk))
    return Snapshot(Path(str(taken_s)), taken_s, ReplicaState("ctr", 0, 0, {0: position}, bound=bound))


def test_the_newest_snapshot_that_reaches_back_is_chosen() -> None:
    told: list[str] = []
    found = [snapshot(1, 20, 5, 0), snapshot(2, 30, 7, 3), snapshot(3, 60, 9, 8)]
    choice = choose(found, 5, LANES, told.append)
    assert (choice.snapshot.taken_s, choice.offsets) == (2, 70 + 43)
    assert told == ["not 3: it can undo back to state 8 only"]


def test_what_retention_has_passed_is_refused_by_its_numbers() -> None:
    told: list[str] = []
    with pytest.raises(StateUnavailable, match="none of 2 snapshots leads back to state 5"):
        choose([snapshot(1, 9, 5, 0), snapshot(2, 30, 60, 0)], 5, LANES, told.append)
    assert told == [
        "not 2: ctr.east.bulk[0] holds 0..50, not 60",
        "not 1: ctr.east.express[0] holds 10..100, not 9",
    ]


def test_a_store_is_rewound_and_ends_like_one_that_undid(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EKKO_SNAPSHOT_EVERY_S", "1")
    table = TableDeclaration("embedding", 4)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table) as deployment:
        region, model = deployment.regions[0], deployment.model.name
        rng = np.random.default_rng(3)

        def train() -> None:
            with Publisher(model, bootstrap=broker.bootstrap, trainer="t") as publisher:
                publisher.publish("embedding", rng.integers(0, 500, 2_000), rng.normal(size=(2_000, 4)))

        train()
        deployment.wait_exact("first rows")
        state = deployment.wait_healthy()
        data = tmp_path / region
        deployment.wait("a snapshot", lambda: any(read(folder) for folder in (data / SNAPSHOTS).glob("*")))
        train()
        deployment.wait_exact("more rows")
        rewind = ["rewind", model, "--region", region, "--data", str(data)]
        early = deployment.ekko(*rewind, check=False)
        assert early.returncode == 1
        assert "never rolled back" in early.stderr

        deployment.ekko("rollback", model, "--to", str(state))
        plan = deployment.ekko(*rewind).stdout
        assert "nothing was changed" in plan
        running = deployment.ekko(*rewind, "--execute", check=False)
        assert running.returncode == 1
        assert "is held by replica" in running.stderr
        deployment.wait_exact("nothing was changed")

        deployment.stores[region].kill()
        done = deployment.ekko(*rewind, "--execute").stdout
        assert "moved the store aside" in done
        deployment.stores[region].start()
        deployment.wait_exact("the rewound store equals the one that undid")
        assert any(path.name.startswith("replaced-") for path in data.iterdir())
