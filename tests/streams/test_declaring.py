"""Declaring and deleting models and regions: what is created, what is refused, what a second run finds."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import own_schemas
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import CatalogueConflict, ConfigurationError, ConnectionFailed
from ekko.streams.catalogue import PARTITION, Catalogue
from ekko.streams.declaring import declare, delete_model, delete_region
from ekko.streams.declaring_file import parse_declarations, read_declarations
from ekko.streams.declaring_plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster, Output, Partition, TopicSpec
from ekko.streams.memory_broker import MemoryBroker
from ekko.streams.memory_log import Fate, Faults, MemoryCluster

USERS = TableDeclaration("users", dim=16)
ITEMS = TableDeclaration("items", dim=8)


class LostReply(Faults):
    """The first transaction commits, but its writer never hears of it."""

    def __init__(self) -> None:
        self.fates = [Fate.REPLY_LOST]

    def transaction(self) -> Fate:
        return self.fates.pop() if self.fates else Fate.DONE


def nowhere(region: RegionDeclaration) -> Cluster:
    raise AssertionError(f"nobody should connect to {region}")


@pytest.fixture
def memory() -> MemoryCluster:
    return MemoryCluster(MemoryBroker(time.monotonic))


@pytest.fixture(params=["memory", "kafka"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "memory":
        yield request.getfixturevalue("memory")
        return
    yield request.getfixturevalue("kafka")


def read(cluster: Cluster) -> Catalogue:
    catalogue = Catalogue(cluster)
    catalogue.refresh()
    return catalogue


def of(model: ModelDeclaration, *regions: str) -> Declarations:
    return Declarations(tuple(RegionDeclaration(region) for region in regions), (model,))


def put(cluster: Cluster, partition: Partition, value: bytes) -> None:
    writer = cluster.writer()
    writer.send(Output(partition, value))
    assert writer.flush(10) == 0


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
    admin.create_partitions([NewPartitions(topics.deltas(name), 4)])[topics.deltas(name)].result(10)
    deadline = time.monotonic() + 10
    while cluster.topics()[topics.deltas(name)] != 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
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
        thread.join(60)
    assert errors == []
    model = read(kafka).model(name)
    assert sorted(table.name for table in model.tables) == ["t0", "t1", "t2", "t3"]


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


FILE = """
[[regions]]
name = "east"

[[regions]]
name = "west"
bootstrap = "west-kafka:9092"

[[models]]
name = "ctr"
shards = 4

[[models.tables]]
name = "embedding"
dim = 16
fraction_bits = 20
initializer = "uniform"
scale = 0.01
seed = 7

[[models.tables]]
name = "bias"
dim = 1
"""


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text(FILE)
    embedding = TableDeclaration("embedding", 16, 20, "uniform", 0.01, 7)
    assert read_declarations(path) == Declarations(
        (RegionDeclaration("east"), RegionDeclaration("west", "west-kafka:9092")),
        (ModelDeclaration("ctr", shards=4, tables=(embedding, TableDeclaration("bias", 1))),),
    )


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("shards = 4", "shards = ", "line 11"),
        ("dim = 16", 'dim = "16"', r"models\[0\]\.tables\[0\]\.dim: .*given: '16'"),
        ("dim = 16", "dim = 0", r"models\[0\]\.tables\[0\]\.dim: "),
        ("dim = 1\n", "dims = 1\n", r"models\[0\]\.tables\[1\]\.dim: Field required.*dims: Extra inputs"),
        ('name = "east"', 'name = "East.1"', r"regions\[0\]\.name: "),
        ("shards = 4", "shards = 4000", r"models\[0\]\.shards: "),
        ("scale = 0.01", "scale = 1e9", "table embedding: scale"),
        ("scale = 0.01", "scale = nan", r"tables\[0\]\.scale: "),
        ('"uniform"', '"gaussian"', r"initializer: .*'zeros' or 'uniform'"),
        ("[[regions]]", "[[region]]", "region: Extra inputs"),
        ('name = "west"', 'name = "east"', "region east stands there twice"),
        ('name = "bias"', 'name = "embedding"', "two tables have the same name"),
        ("seed = 7", "seed = -1", r"tables\[0\]\.seed: "),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(old: str, new: str, told: str) -> None:
    assert old in FILE
    with pytest.raises(ConfigurationError, match=told) as error:
        parse_declarations(FILE.replace(old, new), "models.toml")
    assert error.value.message.startswith("models.toml")


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml cannot be read"):
        read_declarations(tmp_path / "nothing.toml")
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match=r"image\.toml cannot be read"):
        read_declarations(tmp_path / "image.toml")
