"""Deliveries of unknown fate, and how a publisher ends."""

import pytest

from ekko.schemas.errors import (
    ConfigurationError,
    PublishUncertain,
)
from ekko.streams.memory.log import Fate, MemoryCluster
from ekko.streams.publisher import Publisher
from tests.streams.publisher.source_log import Uncertain, blocks_in, ones, rows_in


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REPLY_LOST])
def test_an_unknown_fate_is_told_once_and_never_sent_again(memory_model: tuple[MemoryCluster, str], fate: Fate) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), trainer="t1")
    faults.fates = [fate]
    publisher.publish("users", [1], ones(1))
    with pytest.raises(PublishUncertain, match=r"1 row\(s\) in 1 block") as error:
        publisher.flush(120)
    assert "never publish them again" in error.value.hint
    publisher.publish("users", [2], ones(1))
    publisher.close()
    expected = {2: [1] * 4} if fate is Fate.REFUSED else {1: [1] * 4, 2: [1] * 4}
    assert rows_in(blocks_in(memory, name)) == expected
    assert publisher.acknowledged.rows == 1


def test_an_unknown_fate_is_told_by_the_next_publish_too_which_then_sends_nothing(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    faults = Uncertain()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults))
    faults.fates = [Fate.REFUSED]
    publisher.publish("users", [1], ones(1))
    with pytest.raises(PublishUncertain):
        publisher.publish("users", [2], ones(1))
    publisher.publish("users", [3], ones(1))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [3]


def test_a_closed_publisher_says_so(publisher: Publisher) -> None:
    publisher.close()
    publisher.close()
    with pytest.raises(ConfigurationError, match="closed"):
        publisher.publish("users", [1], ones(1))


def test_an_error_in_the_with_block_is_not_hidden_by_the_closing(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model

    def fail() -> None:
        with Publisher(name, cluster=memory, transactional_id="job") as publisher:
            publisher.publish("users", [1], ones(1))
            raise KeyError("the trainer's own")

    with pytest.raises(KeyError, match="the trainer's own") as error:
        fail()
    assert "wait for a position" in error.value.__notes__[0]
