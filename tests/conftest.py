"""Fixtures shared by all tests.

The broker is the real one, started by the code that `ekko broker` runs; a test whose broker can't start fails.
"""

import gc
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import closing

import hypothesis
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.declarations import RegionDeclaration
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import delete_model, delete_region
from ekko.streams.kafka import KafkaCluster, transactional_writer

_number = itertools.count()

# How long an example takes says how busy the machine is, not whether a property holds.
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole test session; tests keep apart by `topic_prefix`."""
    with Broker(tmp_path_factory.mktemp("broker")) as running:
        yield running
        gc.collect()  # clients that a test has left in a cycle go before their broker, or they call for it in vain


@pytest.fixture
def patient_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is kept waiting for seconds amid a transaction of its own does not lose it.

    The two seconds of processes are for those that are killed, and hold for all that a test starts.
    """
    monkeypatch.setattr(transactional_writer, "TRANSACTION_TIMEOUT_MS", 60_000)


@pytest.fixture
def kafka(broker: Broker, patient_transactions: None) -> Iterator[KafkaCluster]:
    """The session's broker; models and regions that the test declared are deleted after it.

    Every model is served in every region, so what tests leave behind would multiply.
    """
    del patient_transactions
    with closing(KafkaCluster(broker.bootstrap, timeout_s=60.0)) as cluster:
        before = _declared(cluster)
        yield cluster
        models, regions = _declared(cluster)
        for model in models - before[0]:
            delete_model(cluster, model, _connect)
        for region in regions - before[1]:
            delete_region(cluster, region, _connect)


def _connect(region: RegionDeclaration) -> KafkaCluster:
    return KafkaCluster(region.bootstrap, timeout_s=60.0)


def _declared(cluster: KafkaCluster) -> tuple[set[str], set[str]]:
    """Names of the models and of the regions in the catalogue."""
    if topics.CATALOGUE not in cluster.topics():
        return set(), set()
    with closing(Catalogue(cluster)) as catalogue:
        catalogue.refresh()
        return set(catalogue.models), set(catalogue.regions)


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A name that no other test has, of letters, digits and dashes: for topics, models, regions, groups."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:40]
    return f"{name}-{os.getpid():x}-{next(_number)}"
