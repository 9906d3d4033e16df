"""The whole manager: models and regions that come and go, a region that is down."""

import threading
import time

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.errors import ConnectionFailed
from ekko.schemas.replicas import Member, ReplicaState, ShardPosition
from ekko.streams.log import Cluster, Partition
from ekko.streams.manager import ManagerSettings, StateManager
from ekko.streams.manager.history import read_states

from .conftest import SHARDS, World


def announce(world: World, region: RegionDeclaration, complete: int) -> None:
    assert world.model.incarnation is not None
    assert region.incarnation is not None
    shards = {shard: ShardPosition(complete=complete) for shard in range(SHARDS)}
    vector = ReplicaState(world.model.name, world.model.incarnation, region.incarnation, shards)
    member = Member(region.name, "0", "localhost:1", True, 0, 0, (vector,))
    world.write(Partition(topics.members(region.name), 0), encode(member), b"0")


def test_states_become_healthy_when_all_regions_have_them(memory: World) -> None:
    east, west = memory.declare_region("east"), memory.declare_region("west")
    manager = StateManager(memory.cluster, settings=ManagerSettings(epoch_interval_s=10, healthy_after_s=20))

    def verdict(now_s: float) -> Verdict:
        manager.listen()
        manager.step(now_s)
        return read_states(memory.cluster, memory.codec, memory.model)[1].verdict

    for now_s in (100.0, 101.0):
        manager.step(now_s)
    announce(memory, east, 1)
    assert verdict(102) is Verdict.CANDIDATE
    assert verdict(130) is Verdict.CANDIDATE
    announce(memory, west, 1)
    assert verdict(131) is Verdict.CANDIDATE
    assert verdict(152) is Verdict.HEALTHY


def test_models_are_picked_up_at_run_time_and_each_has_its_own_epochs(memory: World) -> None:
    manager = StateManager(memory.cluster, settings=ManagerSettings(epoch_interval_s=10))
    for now_s in (100.0, 101.0):
        manager.step(now_s)
    other = memory.declare_model("dlrm")
    for now_s in (102.5, 103.0, 112.0):
        manager.step(now_s)
    assert list(read_states(memory.cluster, memory.codec, other)) == [1]
    assert list(read_states(memory.cluster, memory.codec, memory.model)) == [1, 2]


def test_a_model_that_fails_holds_up_no_other(memory: World) -> None:
    memory.declare_model("broken")
    memory.cluster.delete_topics([topics.states("broken")])
    manager = StateManager(memory.cluster, settings=ManagerSettings(epoch_interval_s=10))
    for now_s in (100.0, 101.0, 112.0):
        manager.step(now_s)
    assert list(read_states(memory.cluster, memory.codec, memory.model)) == [1, 2]
    assert manager.models["broken"].failure is not None


def test_run_ticks_on_while_a_region_is_down(world: World, topic_prefix: str) -> None:
    world.declare_region(topic_prefix[:50] + "-r")

    asked, answered = threading.Event(), threading.Event()

    def connect(region: RegionDeclaration) -> Cluster:
        asked.set()
        assert answered.wait(300)
        raise ConnectionFailed(f"region {region.name} is down")

    manager = StateManager(world.connect(), settings=ManagerSettings(epoch_interval_s=0.2), connect=connect)
    stop = threading.Event()
    thread = threading.Thread(target=manager.run, args=(stop,))
    thread.start()
    assert asked.wait(120)
    before = len(read_states(world.cluster, world.codec, world.model))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(read_states(world.cluster, world.codec, world.model)) < before + 5:
        time.sleep(0.1)
    written = len(read_states(world.cluster, world.codec, world.model)) - before
    answered.set()
    stop.set()
    thread.join(120)
    assert not thread.is_alive()
    assert written >= 5, "states come though the region has not answered yet"
