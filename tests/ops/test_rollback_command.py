"""The rollback command before its barrier: what it may not touch, and how it ends when it cannot go on."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ekko.ops import rollback
from ekko.ops.broker import Broker
from ekko.ops.settings import Settings, load
from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import ConfigurationError, ConnectionFailed, Fenced
from ekko.schemas.replicas import Member, ReplicaState
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition
from ekko.streams.manager.tenure import Tenure
from tests.ports import free_port
from tests.streams.manager.conftest import World


@pytest.fixture
def world(kafka: KafkaCluster, topic_prefix: str) -> World:
    world = World(lambda: kafka, topic_prefix[:40])
    world.declare_region(f"{topic_prefix[:40]}-r")
    return world


@pytest.fixture
def settings(broker: Broker) -> Settings:
    return load(None, bootstrap=broker.bootstrap)


@pytest.fixture
def manager(world: World) -> Iterator[Tenure]:
    """A manager that has written two barriers."""
    with closing(Tenure(world.cluster, world.codec, world.model, time.time())) as tenure:
        for _ in range(2):
            tenure.write_barrier(world.catalogue().end, time.time())
        yield tenure


def asked(model: str, *, dry_run: bool = False) -> rollback.Request:
    return rollback.Request(model, 1, "test", dry_run, False, 30.0)


def listening() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("members-")]


def test_a_dry_run_fences_nobody_and_the_command_does(world: World, settings: Settings, manager: Tenure) -> None:
    said: list[str] = []
    assert rollback.run(settings, asked(world.model.name, dry_run=True), said.append)
    assert any("return to state 1" in line for line in said)
    assert manager.write_barrier(world.catalogue().end, time.time()).epoch == 3
    assert rollback.run(settings, asked(world.model.name), said.append)
    with pytest.raises(Fenced):
        manager.write_barrier(world.catalogue().end, time.time())
    assert world.newest() == 4
    assert world.barriers()[0][-1].voids == (EpochRange(1, 3),)
    assert listening() == []


def test_a_region_of_which_no_replica_is_heard_is_named_and_the_command_does_not_end_well(
    world: World, settings: Settings, manager: Tenure
) -> None:
    (region,) = (each for each in world.catalogue().regions.values() if each.name.endswith("-r"))
    assert None not in (world.model.incarnation, region.incarnation)
    vector = ReplicaState(world.model.name, world.model.incarnation or 0, region.incarnation or 0, {})
    a_minute_ago = int(time.time() * 1e6) - 60_000_000
    gone = Member(region.name, "gone", "127.0.0.1:1", True, 0, a_minute_ago, (vector,), (vector,))
    world.write(Partition(topics.members(region.name), 0), encode(gone), b"gone")
    said: list[str] = []
    assert not rollback.run(settings, asked(world.model.name), said.append)
    assert said[-1].startswith(f"not heard: {region.name}/gone; what is down undoes before it serves again")
    manager.close()
    assert world.barriers()[0][-1].voids == (EpochRange(1, 2),), "it is done all the same"


def test_an_unknown_model_is_named_with_those_there_are(world: World, settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="'nosuch' is not in the catalogue") as raised:
        rollback.run(settings, asked("nosuch"), print)
    assert world.model.name in (raised.value.hint or "")
    assert listening() == []


def test_a_cluster_that_does_not_answer_ends_it_in_time() -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed):
        rollback.run(load(None, bootstrap=f"127.0.0.1:{free_port()}"), asked("m"), print)
    assert time.monotonic() - started < 60, "three times what every call of a cluster may take, and a hole"
    assert listening() == []
