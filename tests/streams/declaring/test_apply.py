"""Declaring models: what is created, what is refused, what a second run finds."""

import threading
from dataclasses import replace

import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import own_schemas
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import CatalogueConflict
from ekko.streams.catalogue import PARTITION
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations, plan
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster, Partition, TopicSpec
from ekko.streams.memory.log import Fate, Faults, MemoryCluster
from tests.streams.declaring.catalogues import ITEMS, USERS, nowhere, of, put, read
from tests.waiting import wait_for


class LostReply(Faults):
    """The first transaction commits, but its writer never hears of it."""

    def __init__(self) -> None:
        self.fates = [Fate.REPLY_LOST]

    def transaction(self) -> Fate:
        return self.fates.pop() if self.fates else Fate.DONE


def test_apply_makes_catalogue_and_topics_and_a_second_time_nothing(cluster: Cluster, topic_prefix: str) -> None:
    model, region = f"m-{topic_prefix}"[:60], f"r-{topic_prefix}"[:60]
    wanted = of(ModelDeclaration(model, shards=4, shard_groups=2, tables=(USERS,)), region)
    done = declare(cluster, wanted, nowhere)
    assert f"model {model} created with table users (dim 16)" in done
    assert f"topic {model}.deltas created" in done
    assert declare(cluster, wanted, nowhere) == []
    catalogue = read(cluster)
    assert catalogue.model(model).tables == (USERS,)
    assert all(catalogue.has_schema(schema) for schema in own_schemas())
    have = cluster.topics()
    sharded = [topics.deltas(model), topics.fanout(model, region), topics.rejected(model, region)]
    sharded += [topics.lane(model, region, lane) for lane in ("express", "bulk")]
    single = [topics.control(model), topics.states(model), topics.signals(model), topics.audit(model)]
    single += [topics.members(region), topics.CATALOGUE, topics.SHARES]
    assert {name: have[name] for name in sharded} == dict.fromkeys(sharded, 4)
    assert {name: have[name] for name in single} == dict.fromkeys(single, 1)


def test_topics_have_the_retention_of_the_design(cluster: Cluster, topic_prefix: str) -> None:
    model, region = f"m-{topic_prefix}"[:60], f"r-{topic_prefix}"[:60]
    declare(cluster, of(ModelDeclaration(model, shards=1), region), nowhere)
    day_ms = 86_400_000
    kept = {
        topics.CATALOGUE: -1,
        topics.deltas(model): 7 * day_ms,
        topics.lane(model, region, "bulk"): 3 * day_ms,
        topics.lane(model, region, "express"): 3 * day_ms,
        topics.rejected(model, region): 30 * day_ms,
    }
    assert {name: int(cluster.topic_settings(name)["retention.ms"]) for name in kept} == kept
    compacted = [topics.SHARES, topics.states(model), topics.control(model), topics.fanout(model, region)]
    compacted.append(topics.members(region))
    assert {cluster.topic_settings(name)["cleanup.policy"] for name in compacted} == {"compact"}
    assert cluster.topic_settings(topics.CATALOGUE)["cleanup.policy"] == "delete"
    assert cluster.topic_settings(topics.rejected(model, region))["cleanup.policy"] == "compact,delete"
    largest = int(cluster.topic_settings(topics.deltas(model))["max.message.bytes"])
    assert int(cluster.topic_settings(topics.rejected(model, region))["max.message.bytes"]) > largest > 4_000_000


def test_tables_models_and_regions_are_added_at_run_time(memory: MemoryCluster) -> None:
    ctr, other = ModelDeclaration("ctr", shards=2, tables=(USERS,)), ModelDeclaration("other", shards=1)
    declare(memory, of(ctr, "east"), nowhere)
    incarnation = read(memory).model("ctr").incarnation
    grown = replace(ctr, tables=(ITEMS, USERS), max_rows_a_block=1_000)
    assert declare(memory, of(grown, "east"), nowhere) == [
        "model ctr: added table items (dim 8); model ctr: max_rows_a_block 65536 is now 1000"
    ]
    live = read(memory).model("ctr")
    assert (live.tables, live.max_rows_a_block, live.incarnation) == ((USERS, ITEMS), 1_000, incarnation)
    declare(memory, Declarations(models=(other,)), nowhere)
    assert "other.east.bulk" in memory.topics(), "a new model serves the regions there are"
    declare(memory, Declarations(regions=(RegionDeclaration("west"),)), nowhere)
    assert memory.topics()["ctr.west.bulk"] == 2, "a new region gets the models there are"
    assert memory.topics()["other.west.bulk"] == 1


def test_how_deltas_travel_may_change(memory: MemoryCluster) -> None:
    ctr = ModelDeclaration("ctr", shards=2, tables=(USERS, ITEMS))
    declare(memory, of(ctr, "east"), nowhere)
    changed = replace(USERS, admission=3, send_every_s=2.0)
    assert declare(memory, of(replace(ctr, tables=(changed,)), "east"), nowhere) == [
        "model ctr, table users: send_every_s 0.0 is now 2.0; model ctr, table users: admission 1 is now 3"
    ]
    assert read(memory).model("ctr").tables == (changed, ITEMS)


@pytest.mark.parametrize(
    "changed",
    [
        {"shards": 4},
        {"shard_groups": 2},
        {"tables": (replace(USERS, dim=32),)},
        {"tables": (replace(USERS, fraction_bits=16),)},
        {"tables": (replace(USERS, initializer="uniform", scale=0.1),)},
        {"tables": (replace(USERS, seed=1),)},
    ],
    ids=str,
)
def test_what_cannot_change_is_refused_with_the_remedy(memory: MemoryCluster, changed: dict[str, object]) -> None:
    model = ModelDeclaration("ctr", shards=2, tables=(USERS,))
    declare(memory, of(model, "east"), nowhere)
    before, end = memory.topics(), read(memory).end
    refused = Declarations((RegionDeclaration("west"),), (replace(model, **changed),))  # type: ignore[arg-type]
    with pytest.raises(CatalogueConflict, match="cannot become") as conflict:
        declare(memory, refused, nowhere)
    assert "ekko model delete ctr" in conflict.value.hint
    assert (memory.topics(), read(memory).end) == (before, end), "nothing of the file may be done then"


def test_a_changed_partition_count_is_refused_with_the_remedy(memory: MemoryCluster) -> None:
    model = ModelDeclaration("ctr", shards=2)
    memory.create_topics([TopicSpec("ctr.deltas", 4)])
    with pytest.raises(CatalogueConflict, match=r"ctr\.deltas has 4 partition\(s\), it must have 2") as conflict:
        declare(memory, of(model), nowhere)
    assert "another name" in conflict.value.hint
    assert read(memory).models == {}


def test_partitions_added_behind_our_back_are_refused(broker: Broker, kafka: KafkaCluster, topic_prefix: str) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions  # noqa: PLC0415 - the adapter can't do this on purpose

    cluster, name = kafka, f"m-{topic_prefix}"[:60]
    model = ModelDeclaration(name, shards=2)
    declare(cluster, of(model), nowhere)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_partitions([NewPartitions(topics.deltas(name), 4)])[topics.deltas(name)].result(120)
    wait_for(lambda: cluster.topics()[topics.deltas(name)] == 4)
    with pytest.raises(CatalogueConflict, match="has 4 partition"):
        declare(cluster, of(model), nowhere)


def test_a_topic_with_somebody_elses_records_is_not_taken(memory: MemoryCluster) -> None:
    memory.create_topics([TopicSpec("ctr.deltas", 2)])
    put(memory, Partition("ctr.deltas", 0), b"not ours")
    with pytest.raises(CatalogueConflict, match="belongs to no live model"):
        declare(memory, of(ModelDeclaration("ctr", shards=2)), nowhere)


def test_a_lost_log_is_not_made_anew_under_a_live_model(memory: MemoryCluster) -> None:
    model = ModelDeclaration("ctr", shards=2)
    declare(memory, of(model, "east"), nowhere)
    memory.delete_topics(["ctr.east.bulk"])
    with pytest.raises(CatalogueConflict, match=r"ctr\.east\.bulk is gone"):
        declare(memory, of(model, "east"), nowhere)


def test_a_catalogue_that_kafka_would_trim_is_refused(memory: MemoryCluster) -> None:
    memory.create_topics([TopicSpec(topics.CATALOGUE, 1, {"cleanup.policy": "delete", "retention.ms": "604800000"})])
    with pytest.raises(CatalogueConflict, match=r"retention\.ms=604800000"):
        declare(memory, Declarations(), nowhere)


def test_an_apply_that_failed_half_way_is_finished_by_the_next(memory: MemoryCluster) -> None:
    memory.create_topics([TopicSpec("ctr.deltas", 2), TopicSpec("ctr.east.bulk", 2)])  # killed before the record
    done = declare(memory, of(ModelDeclaration("ctr", shards=2), "east"), nowhere)
    assert "topic ctr.east.express created" in done
    assert "topic ctr.deltas created" not in done
    assert "ctr" in read(memory).models


def test_a_commit_of_unknown_fate_is_looked_up_not_repeated(memory: MemoryCluster) -> None:
    cluster = MemoryCluster(memory.broker, LostReply())
    done = declare(cluster, of(ModelDeclaration("ctr", shards=1)), nowhere)
    assert done.count("model ctr created with no tables") == 1
    offsets = [record.offset for record in memory.broker.log(PARTITION).committed(0, read(memory).end)]
    assert len(offsets) == len(own_schemas()) + 1, "each record stands there once"


def test_two_appliers_at_once_lose_nothing(broker: Broker, kafka: KafkaCluster, topic_prefix: str) -> None:
    name = f"m-{topic_prefix}"[:60]
    tables = [TableDeclaration(f"t{number}", dim=number + 1) for number in range(4)]
    errors: list[Exception] = []
    done: list[str] = []

    def apply(table: TableDeclaration) -> None:
        cluster = KafkaCluster(broker.bootstrap)
        try:
            done.extend(declare(cluster, of(ModelDeclaration(name, shards=1, tables=(table,))), nowhere))
        except Exception as error:  # noqa: BLE001 - looked at below
            errors.append(error)
        finally:
            cluster.close()

    threads = [threading.Thread(target=apply, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    model = read(kafka).model(name)
    assert sorted(table.name for table in model.tables) == ["t0", "t1", "t2", "t3"]


def test_names_whose_topics_are_one_to_kafka_are_refused_before_anything_is_made(memory: MemoryCluster) -> None:
    """Its metrics write '.' as '_', so it makes no topic whose name differs from another's by that alone."""
    declare(memory, of(ModelDeclaration("a"), "b_c"), nowhere)
    before = memory.topics()
    with pytest.raises(CatalogueConflict, match=r"a\.b_c\.express and a_b\.c\.express .* nothing was changed") as error:
        declare(memory, of(ModelDeclaration("a_b"), "c"), nowhere)
    assert "model a_b or region c" in error.value.hint
    assert memory.topics() == before
    assert set(read(memory).models) == {"a"}
    declare(memory, of(ModelDeclaration("a-b"), "c"), nowhere)


def test_such_names_on_clusters_of_their_own_do_not_meet(memory: MemoryCluster) -> None:
    declare(memory, of(ModelDeclaration("a"), "b_c"), nowhere)
    far = RegionDeclaration("c", bootstrap="far:9092")
    changes = plan(read(memory), Declarations((far,), (ModelDeclaration("a_b"),)))
    assert [change.key for change in changes] == ["region:c", "model:a_b"]
