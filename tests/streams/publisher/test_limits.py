"""Limits of topics, catalogue and queue: blocks are cut to them, calls are refused at them, whole."""

from dataclasses import replace

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import (
    BadInput,
    ConfigurationError,
    QueueFull,
)
from ekko.streams.log import Cluster, TopicSpec, read_all
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.publisher import Publisher
from tests.streams.publisher.source_log import (
    Stuck,
    apply,
    blocks_in,
    ones,
    rows_in,
)


@pytest.mark.parametrize(("limit", "rows"), [(1_048_588, 20_000), (60_000, 2_000)])
def test_blocks_are_split_to_what_the_topic_takes(
    cluster: Cluster, model: ModelDeclaration, limit: int, rows: int
) -> None:
    one_shard = replace(model, shards=1)
    cluster.create_topics([TopicSpec(topics.deltas(model.name), 1, {"max.message.bytes": str(limit)})])
    apply(cluster, one_shard)
    rng = np.random.default_rng(2)
    with Publisher(model.name, cluster=cluster) as publisher:
        for _ in range(2):  # back to back, so that several blocks may travel in one batch
            receipt = publisher.publish("wide", np.arange(rows), rng.normal(size=(rows, 64)))
        publisher.flush(120)
        assert publisher.acknowledged.rows == 2 * rows
    sizes = [len(record.value or b"") for record in read_all(cluster, topics.deltas(model.name))]
    assert len(sizes) == 2 * receipt.blocks
    assert limit * 0.7 < max(sizes) < limit
    assert sum(sizes) > rows * 64 * 4


def test_blocks_hold_no_more_rows_than_the_catalogue_allows(cluster: Cluster, model: ModelDeclaration) -> None:
    apply(cluster, replace(model, max_rows_a_block=100))
    with Publisher(model.name, cluster=cluster) as publisher:
        publisher.publish("users", np.arange(1_000), ones(1_000))
    blocks = blocks_in(cluster, model.name)
    assert max(len(block.keys) for block in blocks) <= 100
    assert rows_in(blocks) == {key: [1] * 4 for key in range(1_000)}


@pytest.mark.parametrize("trainer", ["", "two\nlines", "bell\a", "x" * 201, "\ud800"])
def test_a_trainers_name_is_printable_and_short(memory_model: tuple[MemoryCluster, str], trainer: str) -> None:
    memory, name = memory_model
    for identity in ({"trainer": trainer}, {"transactional_id": trainer}):
        with pytest.raises(ConfigurationError, match=r"trainer name .* is not allowed"):
            Publisher(name, cluster=memory, **identity)  # type: ignore[arg-type]


def test_a_position_of_another_type_is_refused_and_nothing_is_sent(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, trainer="Trainer 7 (é), " + "x" * 180) as publisher:
        with pytest.raises(BadInput, match="position is str, not bytes"):
            publisher.publish("users", [1], ones(1), position="abc")  # type: ignore[arg-type]
        publisher.flush(120)
        assert publisher.acknowledged.blocks == 0
        assert publisher.publish("users", [1], ones(1), position=b"abc").rows == 1


def test_a_call_larger_than_the_queue_is_refused_at_once(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, queue_bytes=10_000) as publisher:
        with pytest.raises(BadInput, match="the queue holds 10000"):
            publisher.publish("wide", np.arange(1_000), np.ones((1_000, 64)))
        assert publisher.publish("users", [1], ones(1)).rows == 1


def test_a_full_queue_is_told_and_nothing_of_the_call_is_enqueued(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    faults = Stuck()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), queue_bytes=20_000)
    accepted = 0
    try:
        for key in range(1_000):
            publisher.publish("wide", np.arange(10) + 10 * key, np.ones((10, 64)), timeout_s=0.1)
            accepted += 1
    except QueueFull as error:
        assert "nothing was enqueued" in error.message  # noqa: PT017 - the count at this moment is what matters
    assert 0 < accepted < 10
    faults.stuck = False
    publisher.publish("wide", [999], np.ones((1, 64)))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [*range(10 * accepted), 999]


def test_what_waits_for_a_position_is_bounded(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    publisher = Publisher(name, cluster=memory, transactional_id="job", queue_bytes=10_000)
    publisher.publish("wide", np.arange(30), np.ones((30, 64)))
    with pytest.raises(QueueFull, match="a transaction holds 10000") as error:
        publisher.publish("wide", np.arange(30), np.ones((30, 64)))
    assert "position= more often" in error.value.hint
    publisher.publish("users", [1], ones(1), position=b"1")
    publisher.close()
