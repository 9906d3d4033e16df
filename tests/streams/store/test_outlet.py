"""Signals and announcements that cannot be sent: counted, told in health, tried again, and no reason to end."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from ekko.schemas import topics
from ekko.schemas.errors import ConnectionFailed
from ekko.schemas.signals import Signal
from ekko.streams.kafka import KafkaCluster
from ekko.streams.kafka.writer import KafkaWriter
from ekko.streams.log import Delivered, Output, TopicSpec, Writer, read_all
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.replica import outlet
from ekko.streams.replica.membership import Membership, standing, unready
from ekko.streams.replica.signal_relay import SignalRelay
from tests.streams.lanes_by_hand import Lanes
from tests.streams.store.test_store_health import Running

REFUSED = ConnectionFailed("writing failed: Authentication failed")


class Broken:
    """A writer that fails in every call, as an idempotent producer does once it has failed for good."""

    def __init__(self, *, sends: bool) -> None:
        self._sends = sends

    def send(self, output: Output, delivered: Delivered | None = None) -> None:
        del output, delivered
        if not self._sends:
            raise REFUSED

    def poll(self, timeout_s: float = 0.0) -> None:
        del timeout_s
        raise REFUSED

    def flush(self, timeout_s: float) -> int:
        del timeout_s
        raise REFUSED

    def purge(self) -> None:
        """Nothing is queued."""

    def close(self) -> None:
        """Nothing is open."""


class OnceBroken(MemoryCluster):
    """Its first writer is broken; `sends`: it is noticed by polls only. Those who renew it go by `now_s`."""

    def __init__(self, *, sends: bool) -> None:
        self.now_s = 0.0
        super().__init__(MemoryBroker(time.monotonic, decide=lambda: True))
        self.create_topics([TopicSpec(topics.members("east"), 1), TopicSpec(topics.signals("ctr"), 1)])
        self._broken: list[Writer] = [Broken(sends=sends)]

    def writer(  # type: ignore[override]
        self, *, linger_ms: float = 0.0, queue_bytes: int = 64 * 1024 * 1024, batch_bytes: int = 1_000_000
    ) -> Writer:
        if self._broken:
            return self._broken.pop()
        return super().writer(linger_ms=linger_ms, queue_bytes=queue_bytes, batch_bytes=batch_bytes)


@pytest.fixture(params=[False, True])
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnceBroken]:
    cluster = OnceBroken(sends=request.param)
    monkeypatch.setattr(outlet, "time", SimpleNamespace(monotonic=lambda: cluster.now_s))
    yield cluster
    cluster.close()


def test_signals_that_are_lost_are_counted_and_later_ones_go(
    cluster: OnceBroken, caplog: pytest.LogCaptureFixture
) -> None:
    relay = SignalRelay(cluster)
    signal = Signal("ctr", "east", "replica/a", "requests", 1.0, 1, 0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            relay.put(signal)
            relay.pass_on()
    assert relay.trouble == "signals are lost: writing failed: Authentication failed"
    assert [record.message for record in caplog.records] == [relay.trouble], "once"
    cluster.now_s += outlet.RENEW_S
    relay.put(signal)
    relay.pass_on()
    assert read_all(cluster, topics.signals("ctr"))
    assert relay.trouble == ""
    relay.close()


def test_announcements_that_are_lost_are_told_and_later_ones_go(cluster: OnceBroken) -> None:
    myself = unready("east", "a", "localhost:1", 1)
    membership = Membership(cluster, myself)
    membership.announce(standing(myself))
    assert membership.trouble == "announcements are lost: writing failed: Authentication failed"
    cluster.now_s += outlet.RENEW_S
    membership.announce(standing(myself))
    assert [record.key for record in read_all(cluster, topics.members("east"))] == [b"a"]
    assert membership.trouble == ""
    membership.leave()


def test_a_store_whose_writers_fail_serves_on_and_says_so(
    kafka: KafkaCluster, lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(kafka, lanes.region_name, tmp_path / "store")
    try:
        running.wait(lambda: bool(running.health()[1].get("ready")))

        def fail(_writer: KafkaWriter, _timeout_s: float = 0.0) -> None:
            raise REFUSED

        with monkeypatch.context() as broken:
            broken.setattr(KafkaWriter, "poll", fail)
            told = "announcements are lost: writing failed: Authentication failed"
            running.wait(lambda: told in running.health()[1].get("problems", ()))
            assert running.health()[0] == 200
        running.wait(lambda: told not in running.health()[1].get("problems", ()))
    finally:
        running.end()
    assert running.ended_by is None
