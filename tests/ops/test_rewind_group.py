"""Kafka's own tools and a store's consumer group: refused while it works, noticed when it was down (cases 50, 52)."""

import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from ekko.ops.broker import Broker
from ekko.ops.rewind_group import check_in_log, choose_before
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import GapError, StateUnavailable
from ekko.schemas.replicas import LanePosition, ReplicaState, ShardPosition
from ekko.storage.disk.snapshots import SNAPSHOTS, Snapshot, read
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Bounds, Partition
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment

EXPRESS, BULK = Partition("ctr.east.express", 0), Partition("ctr.east.bulk", 0)
LANES = {EXPRESS: Bounds(10, 100), BULK: Bounds(0, 50)}


def snapshot(taken_s: int, express: int, bulk: int) -> Snapshot:
    position = ShardPosition(express=LanePosition(express), bulk=LanePosition(bulk))
    return Snapshot(Path(str(taken_s)), taken_s, ReplicaState("ctr", 0, 0, {0: position}))


def test_one_partition_out_of_range_and_none_is_moved() -> None:
    check_in_log({EXPRESS: 10, BULK: 50}, LANES)
    with pytest.raises(GapError, match=r"1 of 2 partitions .*express\[0\].* 3 offsets are gone.*in any"):
        check_in_log({EXPRESS: 7, BULK: 50}, LANES)
    with pytest.raises(GapError, match="beyond the log's end 50"):
        check_in_log({BULK: 51}, LANES)


def test_the_newest_snapshot_before_every_offset_is_chosen() -> None:
    found = [snapshot(1, 20, 5), snapshot(2, 30, 7), snapshot(3, 60, 9)]
    assert choose_before(found, {EXPRESS: 60}, "east", LANES).snapshot.taken_s == 3
    assert choose_before(found, {EXPRESS: 60, BULK: 8}, "east", LANES).snapshot.taken_s == 2
    with pytest.raises(StateUnavailable, match="none of 3"):
        choose_before(found, {EXPRESS: 19}, "east", LANES)


def tool(deployment: Deployment, group: str, *arguments: str) -> str:
    """What Kafka's own kafka-consumer-groups says."""
    at = ["--bootstrap-server", deployment.bootstrap, "--timeout", "60000"]
    done = deployment.local("kafka", "groups", *at, "--group", group, *arguments)
    return done.stdout + done.stderr


def reset(deployment: Deployment, group: str, *arguments: str) -> None:
    """Set offsets of a group, once its process, which has ended, is no member any more."""
    command = ["--reset-offsets", *arguments, "--execute"]
    deployment.wait("offsets are reset", lambda: "can only be reset" not in tool(deployment, group, *command))


def test_a_store_whose_group_was_reset_refuses_to_start_until_it_is_rewound(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EKKO_SNAPSHOT_EVERY_S", "1")
    table = TableDeclaration("embedding", 4)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as deployment:
        (region,), model, data = deployment.regions, deployment.model.name, tmp_path / deployment.regions[0]
        train(deployment)
        deployment.wait("a snapshot", lambda: any(read(folder) for folder in (data / SNAPSHOTS).glob("*")))
        group = re.search(r"ekko\.store\.\S+", tool_list(deployment, model))
        assert group is not None
        check_groups_are_sane(deployment, group[0])
        refused = tool(deployment, group[0], "--reset-offsets", "--all-topics", "--to-latest", "--execute")
        assert "Assignments can only be reset if the group" in refused

        store = deployment.stores[region]
        store.end()
        reset(deployment, group[0], "--all-topics", "--to-latest")
        store.start()
        assert store.process.wait(120) == 1
        told = store.log.read_text()
        command = re.search(r"`ekko (rewind .*) --to-group`", told)
        assert command is not None, told
        assert "nothing was changed" in told
        rewind = command[1].split()
        assert "nothing was changed; add --execute" in deployment.ekko(*rewind, "--to-group").stdout
        assert "moved the store aside" in deployment.ekko(*rewind, "--to-group", "--execute").stdout
        store.start()
        train(deployment)
        nothing = deployment.ekko(*rewind, "--to-store", check=False)
        assert "is held by" in nothing.stderr
        misspelt = deployment.ekko("rewind", model, "--region", region, "--data", "nosuch", "--to-group", check=False)
        assert "there is no store in nosuch/" in misspelt.stderr
        assert not Path("nosuch").exists()

        deployment.wait("no snapshot is as old as what is set now", lambda: oldest_snapshot(data) > 1)
        store.end()
        reset(deployment, group[0], "--all-topics", "--to-offset", "1")
        early = deployment.ekko(*rewind, "--to-group", "--execute", check=False)
        assert "snapshots stands at or before" in early.stderr
        assert "set back" in deployment.ekko(*rewind, "--to-store", "--execute").stdout
        store.start()
        train(deployment)
        check_one_out_of_range_and_none_moves(deployment, group[0], rewind)
        assert "nobody has reset" in deployment.ekko(*rewind, "--to-store", check=False).stderr


def check_one_out_of_range_and_none_moves(deployment: Deployment, group: str, rewind: list[str]) -> None:
    """Case 52: of three partitions that were set, retention has passed one; each is told, and nothing is moved."""
    deployment.stores[deployment.regions[0]].end()
    express = f"{deployment.model.name}.{deployment.regions[0]}.express"
    reset(deployment, group, "--topic", f"{express}:0,1,2", "--to-offset", "2")
    deployment.trim_before({Partition(express, 1): 5})
    data, before = deployment.folder / deployment.regions[0], places(deployment, group)
    folders = sorted(path.name for path in data.iterdir())
    done = deployment.ekko(*rewind, "--to-group", "--execute", check=False)
    assert done.returncode == 1
    assert "1 of 3 partitions were set to what the log does not hold" in done.stderr
    assert f"{express}[1]" in done.stderr
    assert "3 offsets are gone" in done.stderr
    assert "nothing was changed in any" in done.stderr
    for shard, low in enumerate((0, 5, 0)):
        line = rf"{re.escape(express)}\[{shard}\]: set to 2, the store stands at \d+, the log holds {low}\.\."
        assert re.search(line, done.stdout), done.stdout
    assert places(deployment, group) == before, "no partition was moved"
    assert sorted(path.name for path in data.iterdir()) == folders, "nor was the store"
    assert "set back" in deployment.ekko(*rewind, "--to-store", "--execute").stdout


def oldest_snapshot(data: Path) -> int:
    """Where the oldest snapshot stands in any express lane."""
    snapshots = [each for folder in (data / SNAPSHOTS).glob("*") for each in read(folder)]
    return min(position.express.offset for each in snapshots for position in each.state.shards.values())


def places(deployment: Deployment, group: str) -> dict[Partition, int]:
    """Where the group stands, by the broker."""
    lanes = [Partition(f"{deployment.model.name}.{deployment.regions[0]}.express", s) for s in range(3)]
    with closing(deployment.kafka.group(group)) as member:
        return {partition: place.offset for partition, place in member.committed(lanes).items()}


def train(deployment: Deployment) -> None:
    rng = np.random.default_rng(3)
    with Publisher(deployment.model.name, bootstrap=deployment.bootstrap, trainer="t") as publisher:
        publisher.publish("embedding", rng.integers(0, 500, 2_000), rng.normal(size=(2_000, 4)))
    deployment.wait_exact("all rows, none twice")


def tool_list(deployment: Deployment, model: str) -> str:
    listed: list[str] = []
    admin = AdminClient({"bootstrap.servers": deployment.bootstrap})

    def found() -> bool:
        known = [each.group_id for each in admin.list_consumer_groups().result(120).valid]
        if sum(f".{model}@" in group for group in known) < 2:
            return False  # no Java is started for that
        done = deployment.local("kafka", "groups", "--bootstrap-server", deployment.bootstrap, "--list")
        listed[:] = [line for line in done.stdout.splitlines() if f".{model}@" in line]
        return len(listed) == 2

    deployment.wait("a group of the store, and one of the fan-out", found)
    return "\n".join(listed)


def check_groups_are_sane(deployment: Deployment, group: str) -> None:
    """Members, offsets and lags, as Kafka's tool tells them."""
    for name, topics in ((group, 2), (group.replace("ekko.store.", "ekko.fanout.").rpartition(".")[0], 1)):
        lags: list[tuple[str, str]] = []

        def described(name: str = name, topics: int = topics, lags: list[tuple[str, str]] = lags) -> bool:
            told = tool(deployment, name, "--describe")
            lags[:] = re.findall(rf"{re.escape(deployment.model.name)}\.\S+\s+\d+\s+(\d+)\s+\d+\s+(\d+)\s+ekko", told)
            return len(lags) == topics * deployment.model.shards and all(int(lag) < 50 for _, lag in lags)

        deployment.wait(f"group {name} has members and places, and keeps up", described)
