"""Rollbacks as a trainer meets them."""

import threading
import time
from typing import NoReturn

import pytest

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import (
    ConfigurationError,
    ConnectionFailed,
    RolledBack,
)
from ekko.streams.log import Cluster, Output, Partition
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.publisher import Publisher
from tests.streams.publisher.source_log import (
    Stuck,
    blocks_in,
    ones,
    roll_back,
    rows_in,
)


def publish_until_rolled_back(publisher: Publisher) -> int:
    """How many batches went before the rollback was noticed."""
    deadline = time.monotonic() + 120
    for number in range(10**6):
        try:
            publisher.publish("users", [7], ones(1))
        except RolledBack:
            return number
        assert time.monotonic() < deadline, "the rollback was never noticed"
        time.sleep(0.005)
    raise AssertionError


def test_a_rollback_refuses_the_batch_pulls_and_goes_on_with_the_new_generation(
    cluster: Cluster, declared: str
) -> None:
    pulled: list[int] = []
    with Publisher(declared, cluster=cluster, on_rollback=pulled.append) as publisher:
        publisher.publish("users", [1], ones(1))
        publisher.flush(120)
        roll_back(cluster, publisher, 1)
        publish_until_rolled_back(publisher)
        assert pulled == [1]
        publisher.publish("users", [2], ones(1))
        assert publisher.generation == 1
    generations = {int(block.keys[0]): block.generation for block in blocks_in(cluster, declared)}
    assert generations[1] == 0
    assert generations[2] == 1


def test_nothing_goes_while_the_callback_runs_or_after_it_failed(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    inside: list[str] = []

    def pull(generation: int) -> None:
        with pytest.raises(RolledBack):
            publisher.publish("users", [1], ones(1))
        worker = threading.Thread(target=publish_elsewhere)
        worker.start()
        worker.join(120)
        inside.append(f"pulled {generation}")
        if len(inside) < 3:
            raise OSError("no store answers")

    def publish_elsewhere() -> None:
        try:
            publisher.publish("users", [2], ones(1))
        except RolledBack:
            inside.append("refused")

    publisher = Publisher(name, cluster=memory, on_rollback=pull)
    roll_back(memory, publisher, 1)
    with pytest.raises(OSError, match="no store answers"):
        publisher.publish("users", [3], ones(1))
    with pytest.raises(RolledBack):
        publisher.publish("users", [4], ones(1))
    assert inside == ["refused", "pulled 1"] * 2
    publisher.publish("users", [5], ones(1))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [5]


def test_what_another_thread_learnt_before_a_rollback_does_not_pass_after_it(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    published, rolled_back = threading.Event(), threading.Event()
    refused: list[int] = []
    publisher = Publisher(name, cluster=memory, on_rollback=lambda _: None)

    def learn() -> None:
        publisher.publish("users", [1], ones(1))
        published.set()
        assert rolled_back.wait(120)  # it still learns from what it has read before
        for key in (2, 3, 4):
            try:
                publisher.publish("users", [key], ones(1))
            except RolledBack:
                refused.append(key)

    worker = threading.Thread(target=learn)
    worker.start()
    assert published.wait(120)
    publisher.flush(120)
    roll_back(memory, publisher, 1)
    with pytest.raises(RolledBack):
        publisher.publish("users", [5], ones(1))
    publisher.publish("users", [6], ones(1))
    rolled_back.set()
    worker.join(120)
    publisher.close()
    assert refused == [2], "once, for that batch may be of old rows"
    assert sorted(rows_in(blocks_in(memory, name))) == [1, 3, 4, 6]


def test_without_a_callback_everything_is_refused_from_a_rollback_on(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    publisher = Publisher(name, cluster=memory)
    roll_back(memory, publisher, 1)
    for _ in range(3):
        with pytest.raises(RolledBack) as error:
            publisher.publish("users", [1], ones(1))
        assert "on_rollback" in error.value.hint
    with Publisher(name, cluster=memory) as fresh:
        fresh.publish("users", [1], ones(1))
        assert fresh.generation == 1


def test_a_rollback_drops_what_is_still_queued(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    faults = Stuck()
    publisher = Publisher(name, cluster=MemoryCluster(memory.broker, faults), on_rollback=lambda _: None)
    publisher.publish("users", [1], ones(1))
    roll_back(memory, publisher, 1)
    with pytest.raises(RolledBack):
        publisher.publish("users", [2], ones(1))
    faults.stuck = False
    publisher.publish("users", [3], ones(1))
    publisher.close()
    assert sorted(rows_in(blocks_in(memory, name))) == [3]


def test_a_queue_that_cannot_be_dropped_at_once_is_dropped_before_the_next_batch(
    memory_model: tuple[MemoryCluster, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, name = memory_model
    pulled: list[int] = []
    publisher = Publisher(name, cluster=memory, on_rollback=pulled.append)
    roll_back(memory, publisher, 1)

    def fail() -> NoReturn:
        raise ConnectionFailed("the client has failed")

    with monkeypatch.context() as patched:
        patched.setattr(publisher._sender, "drop", fail)
        with pytest.raises(ConnectionFailed):
            publisher.publish("users", [1], ones(1))
    assert pulled == []
    with pytest.raises(RolledBack):
        publisher.publish("users", [2], ones(1))
    assert pulled == [1]
    assert publisher.publish("users", [3], ones(1)).rows == 1
    publisher.close()


def test_saved_parameters_come_with_their_generation(memory_model: tuple[MemoryCluster, str]) -> None:
    memory, name = memory_model
    with Publisher(name, cluster=memory) as first:
        roll_back(memory, first, 2)
    pulled: list[int] = []
    stale = Publisher(name, cluster=memory, generation=1, on_rollback=pulled.append)
    with pytest.raises(RolledBack):
        stale.publish("users", [1], ones(1))
    assert pulled == [2]
    assert Publisher(name, cluster=memory, generation=2).publish("users", [1], ones(1)).rows == 1
    with pytest.raises(ConfigurationError, match=r"generation 3 was given.*rolled back 2 time"):
        Publisher(name, cluster=memory, generation=3)


def test_the_control_record_of_an_earlier_model_of_this_name_counts_nothing(
    memory_model: tuple[MemoryCluster, str],
) -> None:
    memory, name = memory_model
    foreign = encode(Barrier(incarnation=10**6, epoch=5, generation=5, catalogue_end=0))
    for value in (foreign, b"garbage", None):
        memory.writer().send(Output(Partition(topics.control(name), 0), value, b"control"))
    with Publisher(name, cluster=memory) as publisher:
        assert publisher.generation == 0
