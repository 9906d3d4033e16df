"""The alarm of a model without barriers, and the figures that a manager tells."""

import logging
import time

import pytest
from prometheus_client import REGISTRY

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.streams.log import TopicSpec
from ekko.streams.manager import ManagerSettings, StateManager
from ekko.streams.manager.silence import Silence, is_overdue, shortest_retention_s
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster

from .conftest import World


def names(world: World) -> list[str]:
    lanes = [topics.lane(world.model.name, "east", lane) for lane in Lane]
    return [topics.deltas(world.model.name), *lanes]


def test_the_shortest_retention_of_the_topics_that_are_there_counts(world: World) -> None:
    assert shortest_retention_s(world.cluster, names(world)) == 7 * 86_400  # no region yet
    world.declare_region("east")
    assert shortest_retention_s(world.cluster, names(world)) == 3 * 86_400
    assert shortest_retention_s(world.cluster, [topics.CATALOGUE]) == float("inf")


def test_a_quarter_of_it_is_the_limit() -> None:
    assert not is_overdue(25.0, 100.0)
    assert is_overdue(25.1, 100.0)
    assert not is_overdue(1e9, float("inf"))


def test_it_is_said_once_a_minute_for_as_long_as_it_lasts(memory: World, caplog: pytest.LogCaptureFixture) -> None:
    silence, day = Silence(memory.cluster, "ctr"), 86_400.0
    silence.look(0.0, [], 100 * day)  # no barrier is known: nothing is known to be late
    silence.look(100 * day, [], 101.5 * day)
    assert (silence.overdue, caplog.text) == (False, "")
    for now_s in (102 * day, 102 * day + 30, 102 * day + 61):
        silence.look(100 * day, [], now_s)
    assert silence.overdue
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert "no barrier for 172800 s" in caplog.text
    silence.look(102 * day, [], 102 * day + 200)
    assert not silence.overdue
    silence.look(102 * day, [3 * day, 0.1 * day], 102.1 * day)
    assert silence.overdue, "a region that keeps its lanes for two hours and a half"


def test_a_standby_rings_too_and_prometheus_is_told(memory: World) -> None:
    def told(figure: str) -> float | None:
        return REGISTRY.get_sample_value(f"ekko_manager_{figure}", {"model": memory.model.name})

    now_s, settings = 1_000_000.0, ManagerSettings(epoch_interval_s=10)
    manager = StateManager(memory.connect(), settings=settings, clock=lambda: now_s)
    for _ in range(3):
        now_s += 20
        manager.step(now_s)
    assert (told("leads"), told("epoch"), told("barrier_overdue"), told("barrier_age_seconds")) == (1, 2, 0, 0)
    assert REGISTRY.get_sample_value("ekko_manager_epoch_interval_seconds") == 10
    standby = StateManager(memory.connect(), settings=ManagerSettings(epoch_interval_s=1e7), clock=lambda: now_s)
    standby.step(now_s)
    standby.step(now_s + 200_000)
    assert (told("leads"), told("barrier_overdue"), told("barrier_age_seconds")) == (0, 1, 200_000)
    manager.close()
    standby.close()


def test_the_shortest_includes_the_lanes_of_regions_with_a_cluster_of_their_own(memory: World) -> None:
    memory.declare_region("near")
    own, day = MemoryCluster(MemoryBroker(time.monotonic, decide=lambda: True)), 86_400.0
    for lane in Lane:
        kept = {"retention.ms": str(int((0.5 if lane is Lane.BULK else 3) * day * 1e3))}
        own.create_topics([TopicSpec(topics.lane(memory.model.name, "near", lane), 3, kept)])
    own.create_topics([TopicSpec(topics.members("near"), 1)])
    settings = ManagerSettings(epoch_interval_s=1e7)
    manager = StateManager(memory.connect(), settings=settings, clock=lambda: 0.0, connect=lambda _: own)
    for now_s in (2e9, 2e9 + 1, 2e9 + 2):
        manager.step(now_s)
        manager.listen()
    silence = manager.models[memory.model.name].silence
    assert manager.models[memory.model.name].barrier_s == 2e9 + 1
    manager.step(2e9 + 0.1 * day)
    assert not silence.overdue
    manager.step(2e9 + 0.2 * day)
    assert silence.overdue, "a fifth of a day is more than a quarter of the half that one lane is kept"
    manager.close()
