"""A trainer's input position: in the log with its deltas, and found again."""

from dataclasses import replace

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import (
    BadInput,
    Fenced,
    GapError,
    PublishUncertain,
    RolledBack,
)
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.memory.log import Fate, MemoryCluster
from ekko.streams.publisher import Publisher
from ekko.streams.publisher.position import position_shard
from tests.streams.publisher.source_log import Uncertain, blocks_in, ones, roll_back, rows_in


def test_what_is_written_while_looking_for_a_position_is_a_valid_block(
    publisher: Publisher, cluster: Cluster, declared: str, model: ModelDeclaration
) -> None:
    publisher.last_position()
    (mark,) = blocks_in(cluster, declared)
    assert mark.deltas.shape == (0, model.table(mark.table).dim)
    assert mark.trainer_position is None


def test_deltas_and_position_are_in_the_log_together(cluster: Cluster, declared: str) -> None:
    with Publisher(declared, cluster=cluster, transactional_id="job") as publisher:
        assert publisher.trainer == "job"
        assert publisher.last_position() is None
        publisher.publish("users", np.arange(40), ones(40))
        assert rows_in(blocks_in(cluster, declared)) == {}, "a step is not in the log before its position"
        with pytest.raises(BadInput, match=r"40 row\(s\) in 4 block\(s\) wait for a position"):
            publisher.flush(120)
        publisher.publish("wide", [1], ones(1, 64), position=b"step 1")
        assert publisher.acknowledged.rows == 41
        publisher.publish("users", [1], np.zeros((1, 4)), position=b"")
        assert publisher.last_position() == b"", "an empty position is one"
    restarted = Publisher(declared, cluster=cluster, transactional_id="job")
    assert restarted.last_position() == b""
    restarted.publish("users", [1], ones(1), position=b"step 3")
    assert restarted.last_position() == b"step 3"
    restarted.close()
    assert rows_in([block for block in blocks_in(cluster, declared) if block.table == "users"]) == {
        **{key: [1] * 4 for key in range(40)},
        1: [2] * 4,
    }


def test_blocks_without_rows_are_proper_blocks_too(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory) as first:
        roll_back(memory, first, 3)
    with Publisher(name, cluster=memory, transactional_id="job", generation=1, on_rollback=lambda _: None) as publisher:
        publisher.last_position()
        with pytest.raises(RolledBack):
            publisher.publish("wide", [1], ones(1, 64))
        publisher.publish("wide", [1], np.zeros((1, 64)), position=b"1")
    mark, position = blocks_in(memory, name)
    assert (mark.table, mark.deltas.shape, mark.generation, mark.trainer_position) == ("users", (0, 4), 3, None)
    assert (position.table, position.deltas.shape, position.generation) == ("wide", (0, 64), 3)
    assert position.trainer_position == b"1"
    assert mark.shard == position.shard == position_shard("job", 4)


def test_positions_are_found_behind_many_others(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, transactional_id="rare") as rare:
        rare.publish("users", [1], ones(1), position=b"far back")
    with Publisher(name, cluster=memory, trainer="busy") as busy:
        for step in range(400):
            busy.publish("users", np.arange(20), ones(20), position=str(step).encode())
    assert Publisher(name, cluster=memory, transactional_id="rare").last_position() == b"far back"
    assert Publisher(name, cluster=memory, trainer="busy").last_position() == b"399"
    assert Publisher(name, cluster=memory, trainer="nobody").last_position() is None


def test_what_strangers_wrote_is_passed_over_when_a_position_is_looked_for(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    partition = Partition(topics.deltas(name), position_shard("t1", 4))
    with Publisher(name, cluster=memory, trainer="t1") as publisher:
        publisher.publish("users", [1], ones(1), position=b"1")
        publisher.flush(120)
        cut = encode(replace(Barrier(0, 1, 0, 0), epoch=3))[:-1]
        for value in (b"\x00\x01\x02\x03", None, cut, encode(Barrier(0, 1, 0, 0))):
            memory.writer().send(Output(partition, value))
        assert publisher.last_position() == b"1"


def test_a_position_that_retention_took_is_not_told_as_none(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory, trainer="old") as old:
        old.publish("users", np.arange(20), ones(20), position=b"1")
        partition = Partition(topics.deltas(name), position_shard("old", 4))
        old.flush(120)
        memory.broker.trim(partition, memory.bounds([partition])[partition].end)
        with pytest.raises(GapError, match="what was before is gone"):
            old.last_position()


def test_a_second_trainer_of_an_identity_fences_the_first(cluster: Cluster, declared: str) -> None:
    first = Publisher(declared, cluster=cluster, transactional_id="job")
    first.publish("users", [1], ones(1), position=b"1")
    first.publish("users", [2], ones(1))
    second = Publisher(declared, cluster=cluster, transactional_id="job")
    assert second.last_position() == b"1"
    with pytest.raises(Fenced):
        first.publish("users", [3], ones(1), position=b"2")
    with pytest.raises(Fenced):
        first.publish("users", [3], ones(1), position=b"2")
    second.publish("users", [4], ones(1), position=b"2")
    second.close()
    first.close()
    assert sorted(rows_in(blocks_in(cluster, declared))) == [1, 4]


@pytest.mark.parametrize("fate", [Fate.REPLY_LOST, Fate.HANGING])
def test_a_commit_of_unknown_fate_is_cleared_up_by_the_next_publisher(
    memory_model: tuple[MemoryCluster, str], fate: Fate
) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), transactional_id="job")
    publisher.publish("users", [1], ones(1), position=b"1")
    faults.fates = [fate]
    with pytest.raises(PublishUncertain) as error:
        publisher.publish("users", [2], ones(1), position=b"2")
    assert "last_position()" in error.value.hint
    with pytest.raises(PublishUncertain):
        publisher.publish("users", [3], ones(1), position=b"3")
    publisher.close()
    with Publisher(name, cluster=memory, transactional_id="job") as second:
        if second.last_position() == b"1":
            second.publish("users", [2], ones(1), position=b"2")
    assert rows_in(blocks_in(memory, name)) == {1: [1] * 4, 2: [1] * 4}


def test_an_aborted_transaction_is_tried_again(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), transactional_id="job")
    faults.fates = [Fate.REFUSED, Fate.REFUSED]
    publisher.publish("users", [1], ones(1), position=b"1")
    publisher.close()
    assert rows_in(blocks_in(memory, name)) == {1: [1] * 4}
