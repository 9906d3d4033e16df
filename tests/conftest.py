"""Fixtures shared by all tests.

The broker is the real one, started by the code that `ekko broker` runs; a test whose broker can't start fails.
"""

import itertools
import os
import re
from collections.abc import Iterator

import pytest

from ekko.ops.broker import Broker

_number = itertools.count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole test session; tests keep apart by `topic_prefix`."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A name that no other test has, of letters, digits and dashes: for topics, models, regions, groups."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:40]
    return f"{name}-{os.getpid():x}-{next(_number)}"
