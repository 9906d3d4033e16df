"""What is in the source log after a publish, and which names, values and models are refused."""

import time
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY

from ekko.schemas import topics
from ekko.schemas.codec import own_schemas
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import (
    BadInput,
    CatalogueConflict,
    ConfigurationError,
)
from ekko.schemas.hashing import shard_of
from ekko.streams.catalogue.declaring import delete_model
from ekko.streams.log import Cluster, TopicSpec
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.publisher import Publisher
from tests.streams.publisher.source_log import (
    apply,
    blocks_in,
    ones,
    publish_until,
    rows_in,
)


def test_what_is_published_is_in_the_log(publisher: Publisher, cluster: Cluster, model: ModelDeclaration) -> None:
    before_us = time.time_ns() // 1_000
    keys = np.arange(100, dtype=np.uint64)
    created = keys % 10 == 0
    receipt = publisher.publish("users", np.repeat(keys, 3), ones(300), created=np.repeat(created, 3))
    assert (receipt.rows, receipt.blocks) == (100, 4)
    publisher.flush(120)
    blocks = blocks_in(cluster, model.name)
    assert rows_in(blocks) == {key: [3] * 4 for key in range(100)}, "the same key three times adds up to +3"
    for block in blocks:
        assert set(shard_of(block.keys, 4).tolist()) == {block.shard}
        assert (block.table, block.trainer, block.generation, block.incarnation) == (
            "users",
            "t1",
            0,
            publisher.model.incarnation,
        )
        assert block.catalogue > (publisher.model.incarnation or 0)
        flagged = [] if block.created is None else block.keys[block.created].tolist()
        assert flagged == [key for key in block.keys.tolist() if key % 10 == 0]
        assert before_us <= block.published_us <= time.time_ns() // 1_000


def test_acknowledged_totals_are_what_an_independent_reader_finds(
    publisher: Publisher, cluster: Cluster, model: ModelDeclaration
) -> None:
    rng = np.random.default_rng(1)
    for _ in range(5):
        publisher.publish("users", rng.integers(0, 500, 200), rng.normal(size=(200, 4)))
        publisher.publish("wide", rng.integers(0, 500, 50), rng.normal(size=(50, 64)))
    publisher.flush(120)
    blocks, acknowledged = blocks_in(cluster, model.name), publisher.acknowledged
    assert acknowledged.rows == sum(len(block.keys) for block in blocks)
    assert acknowledged.blocks == len(blocks)
    for table in ("users", "wide"):
        exact = sum(int(value) for block in blocks if block.table == table for value in block.deltas.ravel())
        assert acknowledged.sums[table] == exact % 2**64
    assert acknowledged.total == sum(acknowledged.sums.values()) % 2**64


def test_no_value_that_a_row_cannot_take_reaches_the_log(
    publisher: Publisher, cluster: Cluster, model: ModelDeclaration
) -> None:
    for value in (np.nan, np.inf, -np.inf, 1e38, 128.0):
        deltas = ones(50)
        deltas[17, 2] = value
        with pytest.raises(BadInput, match=f"key {17 + 1_000}.*nothing of this batch was published"):
            publisher.publish("users", np.arange(50) + 1_000, deltas)
    publisher.publish("users", [1], ones(1))
    publisher.flush(120)
    assert rows_in(blocks_in(cluster, model.name)) == {1: [1] * 4}, "the next batch goes, and nothing of the bad one"


def test_a_batch_without_changes_sends_nothing(publisher: Publisher, cluster: Cluster, model: ModelDeclaration) -> None:
    assert publisher.publish("users", [1, 2, 1], np.array([[1.0] * 4, [0.0] * 4, [-1.0] * 4])).blocks == 0
    assert publisher.publish("users", [], np.empty((0, 4))).blocks == 0
    publisher.flush(120)
    assert blocks_in(cluster, model.name) == []


def test_names_that_do_not_exist_are_refused_with_those_that_do(
    cluster: Cluster, declared: str, publisher: Publisher
) -> None:
    with pytest.raises(ConfigurationError, match="no table 'user'") as table:
        publisher.publish("user", [1], ones(1))
    assert "users, wide" in table.value.hint
    with pytest.raises(ConfigurationError, match="model 'nodel' is not in the catalogue") as missing:
        Publisher("nodel", cluster=cluster)
    assert declared in missing.value.hint


def test_without_a_bootstrap_the_error_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EKKO_BOOTSTRAP", raising=False)
    with pytest.raises(ConfigurationError) as error:
        Publisher("ctr")
    assert "EKKO_BOOTSTRAP" in error.value.hint


def test_a_table_added_at_run_time_is_found(publisher: Publisher, cluster: Cluster, model: ModelDeclaration) -> None:
    publisher.publish("users", [1], ones(1))
    before = publisher.model.tables
    apply(cluster, replace(model, tables=(*model.tables, TableDeclaration("late", dim=2))))
    publisher.publish("late", [1], ones(1, 2))
    publisher.flush(120)
    assert len(before) == 2
    by_table = {block.table: block for block in blocks_in(cluster, model.name)}
    assert by_table["late"].catalogue > by_table["users"].catalogue, "readers must have read on to know the table"


def test_a_deleted_model_takes_nothing_any_more(
    publisher: Publisher, cluster: Cluster, model: ModelDeclaration
) -> None:
    publisher.publish("users", [1], ones(1))
    publisher.flush(120)
    delete_model(cluster, model.name, lambda region: pytest.fail(str(region)))
    publish_until(publisher, lambda error: isinstance(error, ConfigurationError) and "was deleted" in error.message)
    apply(cluster, model)
    publish_until(publisher, lambda error: "created anew" in str(error))
    with Publisher(model.name, cluster=cluster, trainer="t2") as second:
        second.publish("users", [1], ones(1))
    assert {block.trainer for block in blocks_in(cluster, model.name)} == {"t2"}


def test_a_version_whose_schema_readers_cannot_know_is_refused(
    memory_model: tuple[MemoryCluster, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, name = memory_model
    newer = [replace(schema, fingerprint=schema.fingerprint ^ 1) for schema in own_schemas()]
    monkeypatch.setattr("ekko.streams.publisher.model.own_schemas", lambda: newer)
    with pytest.raises(ConfigurationError, match="does not hold the schema") as error:
        Publisher(name, cluster=memory)
    assert "ekko model apply" in error.value.hint


def test_another_partition_count_is_refused(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    memory.delete_topics([topics.deltas(name)])
    memory.create_topics([TopicSpec(topics.deltas(name), 8)])
    with pytest.raises(CatalogueConflict, match=r"8 partition\(s\).*4 shards") as error:
        Publisher(name, cluster=memory)
    assert "ekko model delete" in error.value.hint


def test_what_happens_is_counted_for_prometheus(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory) as publisher:
        publisher.publish("users", np.arange(10), ones(10))
        with pytest.raises(BadInput):
            publisher.publish("users", [1], np.full((1, 4), np.nan))

    def sample(metric: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(metric, {"model": name, **labels})

    assert sample("ekko_publisher_rows_total", table="users", fate="acknowledged") == 10
    assert (sample("ekko_publisher_bytes_total", table="users") or 0) > 100
    assert sample("ekko_publisher_refused_batches_total", reason="OutOfRange") == 1
    assert sample("ekko_publisher_acknowledge_seconds_count") == publisher.acknowledged.blocks
    assert sample("ekko_publisher_queue_bytes") == 0
