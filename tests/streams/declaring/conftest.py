"""The real log and its twin."""

import time
from collections.abc import Iterator

import pytest

from ekko.streams.log import Cluster
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster


@pytest.fixture
def memory() -> MemoryCluster:
    return MemoryCluster(MemoryBroker(time.monotonic))


@pytest.fixture(params=["memory", "kafka"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "memory":
        yield request.getfixturevalue("memory")
        return
    yield request.getfixturevalue("kafka")
