"""Deleting models and regions: everything of theirs goes, nothing of others'."""

from dataclasses import replace

import pytest

from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import CatalogueConflict, ConfigurationError
from ekko.streams.catalogue.declaring import declare, delete_model, delete_region
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.log import Cluster, Partition, TopicSpec
from ekko.streams.memory.log import MemoryCluster
from tests.streams.declaring.catalogues import USERS, nowhere, of, put, read


def test_delete_removes_the_model_and_its_topics_and_no_others(cluster: Cluster, topic_prefix: str) -> None:
    model, region = f"m-{topic_prefix}"[:60], f"r-{topic_prefix}"[:60]
    foreign = f"{model}.reports"
    cluster.create_topics([TopicSpec(foreign, 1)])
    declared = ModelDeclaration(model, shards=2, tables=(USERS,))
    declare(cluster, of(declared, region), nowhere)
    first = read(cluster).model(model).incarnation
    put(cluster, Partition(topics.deltas(model), 0), b"something")
    done = delete_model(cluster, model, nowhere)
    assert f"model {model} deleted" in done
    assert [name for name in cluster.topics() if name.startswith(f"{model}.")] == [foreign]
    assert topics.members(region) in cluster.topics()
    assert read(cluster).was_deleted(model=model)
    assert delete_model(cluster, model, nowhere) == []
    declare(cluster, of(replace(declared, shards=3), region), nowhere)
    second = read(cluster).model(model)
    assert second.shards == 3
    assert second.incarnation != first


def test_a_delete_that_failed_half_way_is_finished_by_the_next(memory: MemoryCluster) -> None:
    declare(memory, of(ModelDeclaration("ctr", shards=1), "east"), nowhere)
    delete_model(memory, "ctr", nowhere)
    memory.create_topics([TopicSpec("ctr.deltas", 1)])  # as if the deletion of topics had been cut short
    put(memory, Partition("ctr.deltas", 0), b"old")
    with pytest.raises(CatalogueConflict) as conflict:
        declare(memory, of(ModelDeclaration("ctr", shards=1)), nowhere)
    assert "finish with `ekko model delete ctr`" in conflict.value.hint
    assert delete_model(memory, "ctr", nowhere) == ["topic ctr.deltas deleted"]
    declare(memory, of(ModelDeclaration("ctr", shards=1)), nowhere)


def test_a_model_that_never_was_cannot_be_deleted(memory: MemoryCluster) -> None:
    declare(memory, of(ModelDeclaration("ctr")), nowhere)
    with pytest.raises(ConfigurationError, match="model 'crt' is not in the catalogue"):
        delete_model(memory, "crt", nowhere)


def test_a_region_is_deleted_with_its_topics_of_all_models(memory: MemoryCluster) -> None:
    both = Declarations((RegionDeclaration("east"), RegionDeclaration("west")), (ModelDeclaration("ctr", shards=1),))
    declare(memory, both, nowhere)
    first = read(memory).region("east").incarnation
    done = delete_region(memory, "east", nowhere)
    assert "region east deleted" in done
    assert not [name for name in memory.topics() if "east" in name]
    assert "ctr.west.bulk" in memory.topics()
    assert delete_region(memory, "east", nowhere) == []
    declare(memory, both, nowhere)
    assert read(memory).region("east").incarnation != first
    assert "ctr.east.bulk" in memory.topics()
    with pytest.raises(ConfigurationError, match="region 'north' is not in the catalogue"):
        delete_region(memory, "north", nowhere)
