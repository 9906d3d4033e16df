"""Regions with a cluster of their own."""

import time
from dataclasses import replace

import pytest

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import CatalogueConflict, ConnectionFailed
from ekko.streams.catalogue.declaring import declare, delete_model
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.log import Cluster
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import Faults, MemoryCluster
from tests.streams.declaring.catalogues import read


def test_a_region_with_its_own_cluster_gets_its_topics_there(memory: MemoryCluster) -> None:
    regional = MemoryCluster(MemoryBroker(time.monotonic))
    asked: list[str] = []

    def connect(region: RegionDeclaration) -> Cluster:
        asked.append(region.bootstrap)
        return regional

    region = RegionDeclaration("east", bootstrap="east-kafka:9092")
    wanted = Declarations((region,), (ModelDeclaration("ctr", shards=2),))
    done = declare(memory, wanted, connect)
    assert "region east: topic ctr.east.bulk created" in done
    assert set(asked) == {"east-kafka:9092"}
    lanes = {"ctr.east.express", "ctr.east.bulk", "ctr.east.fanout", "ctr.east.rejected"}
    mirrored = {"ekko.catalogue", "ctr.control", "ctr.signals"}
    assert regional.topics().keys() == lanes | mirrored | {"ekko.east.members", "ekko.east.fanouts"}
    assert not lanes & memory.topics().keys()
    assert declare(memory, wanted, connect) == []
    moved = Declarations((replace(region, bootstrap="east-1:9092,east-2:9092"),))
    assert declare(memory, moved, connect) == [
        "region east: bootstrap 'east-kafka:9092' is now 'east-1:9092,east-2:9092'"
    ]
    delete_model(memory, "ctr", connect)
    assert regional.topics().keys() == {"ekko.east.members", "ekko.east.fanouts", "ekko.catalogue"}


def test_the_central_cluster_is_no_regions_own(memory: MemoryCluster) -> None:
    wanted = Declarations((RegionDeclaration("east", "central-by-another-name:9092"),), (ModelDeclaration("ctr"),))
    with pytest.raises(CatalogueConflict, match="leads to a central cluster") as conflict:
        declare(memory, wanted, lambda _: memory)
    assert "leave bootstrap out" in conflict.value.hint
    assert read(memory).regions == {}


def test_a_region_cannot_move_to_a_cluster_without_its_lanes(memory: MemoryCluster) -> None:
    clusters = {name: MemoryCluster(MemoryBroker(time.monotonic)) for name in ("a:1", "b:1")}
    model = ModelDeclaration("ctr", shards=1)
    declare(
        memory, Declarations((RegionDeclaration("east", "a:1"),), (model,)), lambda region: clusters[region.bootstrap]
    )
    with pytest.raises(CatalogueConflict, match="is gone"):
        declare(memory, Declarations((RegionDeclaration("east", "b:1"),)), lambda region: clusters[region.bootstrap])
    assert read(memory).region("east").bootstrap == "a:1"


def test_a_regions_cluster_that_does_not_answer_is_named(memory: MemoryCluster) -> None:
    class Away(Faults):
        def reachable(self) -> bool:
            return False

    away = MemoryCluster(MemoryBroker(time.monotonic), Away())
    wanted = Declarations((RegionDeclaration("east", "gone:1"),), (ModelDeclaration("ctr"),))
    with pytest.raises(ConnectionFailed, match="region east: "):
        declare(memory, wanted, lambda _: away)
    assert read(memory).models == {}
