"""The alarm of a model without barriers, and the figures that a manager tells."""

import logging

import pytest
from prometheus_client import REGISTRY

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.streams.manager import ManagerSettings, StateManager
from ekko.streams.manager.silence import Silence, is_overdue, shortest_retention_s

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
    silence.look(0.0, names(memory), 100 * day)  # no barrier is known: nothing is known to be late
    silence.look(100 * day, names(memory), 101.5 * day)
    assert (silence.overdue, caplog.text) == (False, "")
    for now_s in (102 * day, 102 * day + 30, 102 * day + 61):
        silence.look(100 * day, names(memory), now_s)
    assert silence.overdue
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert "no barrier for 172800 s" in caplog.text
    silence.look(102 * day, names(memory), 102 * day + 200)
    assert not silence.overdue


def test_a_standby_rings_too_and_prometheus_is_told(memory: World) -> None:
    def told(figure: str) -> float | None:
        return REGISTRY.get_sample_value(f"ekko_manager_{figure}", {"model": memory.model.name})

    now_s, settings = 1_000_000.0, ManagerSettings(epoch_interval_s=10)
    manager = StateManager(memory.connect(), settings=settings, clock=lambda: now_s)
    for _ in range(3):
        now_s += 20
        manager.step(now_s)
    assert (told("leads"), told("epoch"), told("barrier_overdue"), told("barrier_age_seconds")) == (1, 2, 0, 0)
    standby = StateManager(memory.connect(), settings=ManagerSettings(epoch_interval_s=1e7), clock=lambda: now_s)
    standby.step(now_s)
    standby.step(now_s + 200_000)
    assert (told("leads"), told("barrier_overdue"), told("barrier_age_seconds")) == (0, 1, 200_000)
    manager.close()
    standby.close()
