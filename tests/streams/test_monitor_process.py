"""`ekko monitor` as a process on a real broker: signals in, shares out; killed; models that come at run time."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Signal
from ekko.streams.health.proposals import Proposal
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec
from ekko.streams.manager.automatic import ProposalReader
from tests.ports import free_port
from tests.streams.monitor_child import Clock, Signals, monitor, page
from tests.waiting import PATIENCE_S, wait_for


@pytest.fixture
def signals(kafka: KafkaCluster, broker: Broker) -> Signals:
    return Signals(kafka, broker.bootstrap)


def test_signals_become_shares_through_kills_and_new_models(
    signals: Signals, broker: Broker, topic_prefix: str
) -> None:
    port = free_port()
    one, other = (signals.declare(f"{topic_prefix}-{letter}"[-60:].lstrip("-0123456789")) for letter in "ab")
    with monitor(broker.bootstrap, port) as process:
        signals.shares()
        page(port, "health")
        signals.wait_until_heard(one.name, other.name)
        signals.signal(one.name, "requests", 300)
        signals.signal(other.name, "requests", 100)
        signals.signal(one.name, "gradient_norm", 30.0, 10)
        signals.signal(other.name, "gradient_norm", 5.0, 10)
        signals.send(Output(Partition(topics.signals(one.name), 0), b"not a signal"))
        signals.signal(one.name, "requests", float("nan"))
        signals.signal(one.name, "gradient_norm", 30.0, 10)
        expected = {one.name: (0.75, 3.0), other.name: (0.25, 0.5)}
        signals.wait_for_shares(expected)
        healthy = {
            "models": sorted([one.name, other.name]),
            "unreadable_signals": 2,
            "late_signals": 0,
            "silent_trainers": {one.name: {}, other.name: {}},
        }
        wait_for(lambda: page(port, "health") == healthy)  # shares are right before the last signals have been read
        signals.wait_until_committed(one.name, other.name)
        process.kill()
        process.wait(120)
    killed_us = int(time.time() * 1e6)
    signals.signal(other.name, "requests", 200)  # while nobody listens
    with monitor(broker.bootstrap, port) as process:
        signals.wait_for_shares({one.name: (0.0, 0.0), other.name: (1.0, 0.0)}, killed_us)  # windows begin anew
        signals.signal(one.name, "requests", 600)
        signals.wait_for_shares({one.name: (0.75, 0.0), other.name: (0.25, 0.0)}, killed_us)
        third = signals.declare(f"{topic_prefix}-c"[-60:].lstrip("-0123456789"))

        def followed() -> bool:
            health = page(port, "health")
            assert isinstance(health, dict)
            return third.name in health["models"]

        wait_for(followed)
        signals.wait_until_heard(third.name)
        signals.signal(third.name, "requests", 600)
        signals.signal(one.name, "requests", 200)
        signals.wait_for_shares({one.name: (0.25, 0.0), third.name: (0.75, 0.0)}, killed_us)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(120) == 0


@contextmanager
def changelogs_cut_by_retention(cluster: KafkaCluster, bootstrap: str) -> Iterator[None]:
    """What an Ekko that kept changelogs has left behind, its beginning gone: Faust's recovery never came to its end."""
    partitions = [Partition(f"ekko-monitor-{table}-changelog", 0) for table in ("windows", "samples")]
    cluster.create_topics(TopicSpec(partition.topic, 1) for partition in partitions)
    writer = cluster.writer()
    for partition in partitions:
        for _ in range(3):
            writer.send(Output(partition, b"0.0", b"0"))
    assert writer.flush(120) == 0
    admin = AdminClient({"bootstrap.servers": bootstrap})
    cut = [TopicPartition(*partition, bounds.end - 1) for partition, bounds in cluster.bounds(partitions).items()]
    for future in admin.delete_records(cut).values():
        future.result(120)
    assert all(0 < low == end - 1 for low, end in cluster.bounds(partitions).values())
    yield
    cluster.delete_topics(partition.topic for partition in partitions)


def test_a_changelog_cut_by_retention_stops_nothing(
    signals: Signals, kafka: KafkaCluster, broker: Broker, topic_prefix: str
) -> None:
    """faust-streaming/faust#597."""
    port = free_port()
    name = signals.declare(f"{topic_prefix}-r"[-60:].lstrip("-0123456789")).name
    since_us = int(time.time() * 1e6)
    with changelogs_cut_by_retention(kafka, broker.bootstrap), monitor(broker.bootstrap, port) as process:
        page(port, "health")
        signals.wait_until_heard(name)
        signals.signal(name, "requests", 100)
        signals.wait_for_shares({name: (1.0, 0.0)}, since_us)
        assert process.poll() is None


STALLED_SOON = """
from pathlib import Path
from ekko.ops.monitor_process import run
from ekko.ops.settings import load
from ekko.streams.monitor.settings import MonitorSettings
run(load(None, bootstrap="{bootstrap}"), MonitorSettings(port={port}, stall_s=4.0, data=Path("{data}")))
"""


def test_a_monitor_that_takes_no_signals_says_so_and_ends(
    signals: Signals, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Another program is in its group, keeps the partitions and commits nothing."""
    name = signals.declare(f"{topic_prefix}-s"[-60:].lstrip("-0123456789")).name
    script = STALLED_SOON.format(bootstrap=broker.bootstrap, port=free_port(), data=tmp_path / "monitor")
    intruder = Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "ekko-monitor", "enable.auto.commit": False}
    )
    intruder.subscribe([topics.signals(name)])
    deadline = time.monotonic() + 2 * PATIENCE_S
    while not intruder.assignment():
        intruder.poll(0.2)
        assert time.monotonic() < deadline
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        try:
            while process.poll() is None:
                intruder.poll(0.2)
                signals.signal(name, "requests", 1)
                assert time.monotonic() < deadline
        finally:
            process.kill()
            intruder.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 1
    assert re.search(rb"signals wait \(\d+ in " + topics.signals(name).encode(), said), said
    assert b"\x1b" not in said


def test_a_signal_ends_it_though_its_broker_is_away(tmp_path: Path) -> None:
    """Faust's consumer goes on trying to close, for a minute and more (65 s alone on a machine)."""
    port = free_port()
    with Broker(tmp_path / "broker") as own, closing(KafkaCluster(own.bootstrap, timeout_s=60.0)) as cluster:
        signals = Signals(cluster, own.bootstrap)
        name = signals.declare("ctr").name
        with monitor(own.bootstrap, port) as process:
            signals.wait_until_heard(name)
            page(port, "health")
            own.kill()
            process.terminate()
            assert process.wait(45) == 0


def test_a_model_that_gets_worse_is_proposed_as_corrupt(signals: Signals, broker: Broker, topic_prefix: str) -> None:
    """Serving reports both cohorts; from some second on the live one is much worse.

    Reports are dated ahead, and none is left out: whoever is kept waiting for some seconds, none comes too late.
    """
    port = free_port()
    name = signals.declare(f"{topic_prefix}-x"[-60:].lstrip("-0123456789")).name
    partition = Partition(topics.signals(name), 0)
    proposals = ProposalReader(signals.cluster, Codec(), ModelDeclaration(name))
    clock = Clock()

    def serve(live: float, until: Verdict) -> tuple[float, Proposal]:
        """Report twice a second until the monitor says so: what it said, and the seconds until it saw something."""
        start_s, deadline = clock.now_s, time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for event_s in clock.ticks(ahead_s=10.0):
                for cohort, loss in (("live", live), ("baseline", 0.5)):
                    report = Signal(name, "e", "s/1", "log_loss", loss * 99, 99, int(event_s * 1e6), cohort)
                    signals.send(Output(partition, encode(report)))
            time.sleep(0.5)
            proposal = proposals.poll()
            if proposal is not None and proposal.verdict is until:
                return proposal.since_us / 1e6 - start_s, proposal
        raise AssertionError(f"not {until} within {PATIENCE_S} s")

    with monitor(broker.bootstrap, port):
        page(port, "health")
        serve(0.5, Verdict.HEALTHY)
        seen_after_s, proposal = serve(0.9, Verdict.CORRUPT)
        # By the reports' own times, for the monitor may be kept waiting: a window is five buckets of a second.
        assert -1.0 <= seen_after_s < 6.0
        assert "log_loss is 0." in proposal.reason
        serve(0.5, Verdict.HEALTHY)
    proposals.close()
