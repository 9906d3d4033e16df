"""A cluster (the twin, or the real broker) with one declared model, for the manager's tests."""

import time
from collections.abc import Callable, Iterator

import pytest

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import Barrier, ModelState
from ekko.schemas.replicas import Member, ReplicaState, ShardPosition
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster, Output, Partition, read_all
from ekko.streams.manager.history import read_control, read_states
from ekko.streams.manager.rollback import Region
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Faults
from ekko.streams.memory.log import MemoryCluster
from tests.streams.visible import await_visible

SHARDS = 3


class World:
    """What all processes of a test share."""

    def __init__(self, connect: Callable[[], Cluster], name: str) -> None:
        self.connect = connect
        self.cluster = connect()
        self.codec = Codec()
        self.model = self.declare_model(name)

    def declare_model(self, name: str) -> ModelDeclaration:
        self._declare(Declarations((), (ModelDeclaration(name, shards=SHARDS),)))
        return self.catalogue().model(name)

    def declare_region(self, name: str) -> RegionDeclaration:
        self._declare(Declarations((RegionDeclaration(name),), ()))
        return self.catalogue().region(name)

    def _declare(self, declarations: Declarations) -> None:
        declare(self.cluster, declarations, lambda _: self.connect())

    def catalogue(self) -> Catalogue:
        catalogue = Catalogue(self.cluster)
        catalogue.refresh()
        return catalogue

    def write(self, partition: Partition, value: bytes | None, key: bytes | None = None) -> None:
        writer = self.cluster.writer()
        writer.send(Output(partition, value, key))
        assert writer.flush(120) == 0
        writer.close()

    def settle(self) -> None:
        """Wait until the markers of whatever the managers committed are written (a commit's answer comes before)."""
        assert self.model.incarnation is not None
        identity = topics.manager_transactional_id(self.model.name, self.model.incarnation)
        self.cluster.transactional_writer(identity).close()

    def states(self) -> dict[int, ModelState]:
        """Published states by epoch, once no manager writes any more."""
        self.settle()
        return read_states(self.cluster, self.codec, self.model)

    def barriers(self) -> list[list[Barrier]]:
        """Barriers in every source partition, by shard, once no manager writes any more."""
        self.settle()
        found: list[list[Barrier]] = [[] for _ in range(SHARDS)]
        for record in read_all(self.cluster, topics.deltas(self.model.name)):
            message = self.codec.decode(record.value) if record.value and record.value[:2] == b"EK" else None
            if isinstance(message, Barrier):
                found[record.partition.number].append(message)
        return found

    def newest(self) -> int:
        """Epoch of the last committed barrier; fences nobody."""
        await_visible(self.cluster, topics.control(self.model.name))
        barrier = read_control(self.cluster, self.codec, self.model)
        return 0 if barrier is None else barrier.epoch

    def epochs(self) -> list[list[int]]:
        return [[barrier.epoch for barrier in shard] for shard in self.barriers()]


@pytest.fixture
def memory() -> World:
    """In memory; a test plants faults by connecting another process to `world.broker`."""
    broker = MemoryBroker(time.monotonic, decide=lambda: True)
    return World(lambda: MemoryCluster(broker), "ctr")


@pytest.fixture(params=["memory", "kafka"])
def world(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[World]:
    """The same tests on the twin and on the real broker."""
    if request.param == "memory":
        yield request.getfixturevalue("memory")
        return
    request.getfixturevalue("kafka")  # deletes what the test declares
    bootstrap = request.getfixturevalue("broker").bootstrap
    world = World(lambda: KafkaCluster(bootstrap, timeout_s=60.0), topic_prefix[:60])
    yield world
    world.cluster.close()


def faulty(world: World, faults: Faults) -> MemoryCluster:
    """Another process's connection to the same memory broker."""
    assert isinstance(world.cluster, MemoryCluster)
    return MemoryCluster(world.cluster.broker, faults)


def complete_at(world: World, state: int, bound: int = 0) -> Region:
    """A region whose one replica is complete at `state`."""
    assert world.model.incarnation is not None
    shards = {shard: ShardPosition(complete=state) for shard in range(SHARDS)}
    vector = ReplicaState(world.model.name, world.model.incarnation, 1, shards, bound=bound)
    return Region(1, (Member("r", "0", "localhost:1", True, 0, 0, (vector,), (vector,)),))
