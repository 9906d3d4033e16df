"""A trainer that closes its publisher is not called silent afterwards: it says that it ends."""

import logging
import time

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.errors import QueueFull
from ekko.schemas.signals import ENDED, Signal
from ekko.streams.log import Cluster, read_all
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.publisher import Publisher
from ekko.streams.publisher.farewell import say_farewell
from tests.streams.publisher.source_log import ones


def ended(cluster: Cluster, model: str) -> list[Signal]:
    messages = (Codec().decode(record.value) for record in read_all(cluster, topics.signals(model)))
    return [each for each in messages if isinstance(each, Signal) and each.metric == ENDED]


def test_one_that_has_published_says_farewell_once(cluster: Cluster, declared: str) -> None:
    before_us = time.time_ns() // 1_000
    publisher = Publisher(declared, cluster=cluster, trainer="t1")
    publisher.publish("users", np.arange(5), ones(5))
    assert ended(cluster, declared) == []
    publisher.close()
    publisher.close()
    (farewell,) = ended(cluster, declared)
    assert (farewell.source, farewell.model) == ("trainer/t1", declared)
    assert before_us < farewell.event_us <= time.time_ns() // 1_000


@pytest.mark.parametrize(("ending", "farewells"), [(ZeroDivisionError, 0), (KeyboardInterrupt, 1), (SystemExit, 1)])
def test_one_that_breaks_down_has_not_ended(
    cluster: Cluster, declared: str, ending: type[BaseException], farewells: int
) -> None:
    def train() -> None:
        with Publisher(declared, cluster=cluster, trainer="t1") as publisher:
            publisher.publish("users", np.arange(5), ones(5))
            publisher.flush(120)
            raise ending

    with pytest.raises(ending):
        train()
    assert len(ended(cluster, declared)) == farewells


def test_one_that_never_published_has_nothing_to_end(cluster: Cluster, declared: str) -> None:
    with Publisher(declared, cluster=cluster, trainer="t1"):
        pass
    assert ended(cluster, declared) == []


def test_a_farewell_that_cannot_be_said_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Full(MemoryCluster):
        def writer(self, **_: object) -> None:  # type: ignore[override]
            raise QueueFull("no room")

    with caplog.at_level(logging.WARNING):
        say_farewell(Full.__new__(Full), "ctr", "t1")
    assert "model ctr: the monitor may call trainer t1 silent" in caplog.text
