"""A model declared on the real log and on its twin."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.streams.catalogue.declaring import declare, delete_model
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.publisher import Publisher
from tests.streams.publisher.own_broker import MODEL
from tests.streams.publisher.source_log import USERS, WIDE, apply


@pytest.fixture(params=["memory", "kafka"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    if request.param == "memory":
        return MemoryCluster(MemoryBroker(time.monotonic))
    found: Cluster = request.getfixturevalue("kafka")
    return found


@pytest.fixture
def model(topic_prefix: str) -> ModelDeclaration:
    return ModelDeclaration(f"m-{topic_prefix}"[:60], shards=4, tables=(USERS, WIDE))


@pytest.fixture
def declared(cluster: Cluster, model: ModelDeclaration) -> str:
    apply(cluster, model)
    return model.name


@pytest.fixture
def publisher(cluster: Cluster, declared: str) -> Iterator[Publisher]:
    with Publisher(declared, cluster=cluster, trainer="t1") as publisher:
        yield publisher


@pytest.fixture
def memory_model(model: ModelDeclaration) -> tuple[MemoryCluster, str]:
    memory = MemoryCluster(MemoryBroker(time.monotonic))
    apply(memory, model)
    return memory, model.name


@pytest.fixture(scope="module")
def mortal_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of these tests alone."""
    with Broker(tmp_path_factory.mktemp("mortal") / "broker") as broker:
        yield broker


@pytest.fixture
def own_broker(mortal_broker: Broker) -> Iterator[Broker]:
    """It runs, holds a model that is declared anew, and may be killed."""
    with closing(KafkaCluster(mortal_broker.bootstrap)) as cluster:
        declare(cluster, Declarations(models=(MODEL,)), nowhere)
    yield mortal_broker
    if not mortal_broker.running:
        mortal_broker.start()
    with closing(KafkaCluster(mortal_broker.bootstrap)) as cluster:
        delete_model(cluster, MODEL.name, nowhere)


def nowhere(region: RegionDeclaration) -> Cluster:
    raise AssertionError(f"nobody should connect to {region}")
