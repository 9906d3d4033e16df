"""`ekko monitor` as a process on a real broker: signals in, shares out; killed; models that come at run time."""

import itertools
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Shares, Signal
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.health.proposals import Proposal
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec, read_all
from ekko.streams.manager.automatic import ProposalReader
from ekko.streams.monitor.settings import GROUP

AHEAD_S = 10.0
"""Signals are dated so far ahead, so that they are late for no bucket, however busy the machine is."""

PATIENCE_S = 90.0
"""For a monitor on a busy machine."""


class Signals:
    """Declares models, sends their signals, reads their shares."""

    def __init__(self, cluster: KafkaCluster, bootstrap: str) -> None:
        self.cluster = cluster
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.writer = self.cluster.writer()

    def declare(self, name: str) -> ModelDeclaration:
        declare(self.cluster, Declarations((), (ModelDeclaration(name, shards=1),)), lambda _: self.cluster)
        catalogue = Catalogue(self.cluster)
        catalogue.refresh()
        return catalogue.model(name)

    def send(self, output: Output) -> None:
        self.writer.send(output)
        assert self.writer.flush(10) == 0

    def signal(self, model: str, metric: str, value: float, count: int = 1) -> None:
        event_us = int((time.time() + AHEAD_S) * 1e6)
        message = Signal(model, "east", "serving/1", metric, value, count, event_us)
        self.send(Output(Partition(topics.signals(model), 0), encode(message)))

    def shares(self, since_us: int = 0) -> dict[str, Shares]:
        found: dict[str, Shares] = {}
        for record in read_all(self.cluster, topics.SHARES):
            message = Codec().decode(record.value)
            if isinstance(message, Shares) and message.written_us > since_us:
                found[message.model] = message
        return found

    def wait_until_heard(self, *models: str) -> None:
        """Wait until the monitor reads these models' signals: it has read some that count for nothing.

        It begins at the end, so what comes before it has asked where that is, it never hears of.
        """
        partitions = [Partition(topics.signals(model), 0) for model in models]
        deadline = time.monotonic() + PATIENCE_S
        with closing(self.cluster.group(GROUP)) as group:
            while group.committed(partitions).keys() != set(partitions):
                assert time.monotonic() < deadline, group.committed(partitions)
                for model in models:
                    self.signal(model, "counts for nothing", 0.0)
                time.sleep(0.5)

    def wait_until_committed(self, *models: str) -> None:
        """Wait until the monitor's group stands at the end: before its first commit it has no place."""
        partitions = [Partition(topics.signals(model), 0) for model in models]
        ends = {partition: bounds.end for partition, bounds in self.cluster.bounds(partitions).items()}
        deadline = time.monotonic() + 30
        with closing(self.cluster.group(GROUP)) as group:
            while {at: place.offset for at, place in group.committed(partitions).items()} != ends:
                assert time.monotonic() < deadline, group.committed(partitions)
                time.sleep(0.2)

    def wait_for_shares(self, expected: dict[str, tuple[float, float]], since_us: int = 0) -> None:
        """Wait until request shares and gradient means are so."""
        start = time.monotonic()
        while True:
            found = self.shares(since_us)
            if expected.keys() <= found.keys() and all(
                math.isclose(found[name].request_share, share, abs_tol=1e-6)
                and math.isclose(found[name].mean_gradient, mean, abs_tol=1e-6)
                for name, (share, mean) in expected.items()
            ):
                return
            assert time.monotonic() - start < 60, found
            time.sleep(0.2)


@pytest.fixture
def signals(kafka: KafkaCluster, broker: Broker) -> Signals:
    return Signals(kafka, broker.bootstrap)


@contextmanager
def monitor(bootstrap: str, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("ekko")), "monitor", "--bootstrap", bootstrap, "--port", str(port)]
    process = subprocess.Popen([*command, "--interval", "0.5", "--window", "240", *options])
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def page(port: int, name: str) -> object:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}/", timeout=5) as reply:
            return json.load(reply)
        assert time.monotonic() < deadline
        time.sleep(0.2)


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
        assert page(port, "health") == {
            "models": sorted([one.name, other.name]),
            "unreadable_signals": 2,
            "late_signals": 0,
            "silent_trainers": {one.name: {}, other.name: {}},
        }
        signals.wait_until_committed(one.name, other.name)
        process.kill()
        process.wait(10)
    killed_us = int(time.time() * 1e6)
    signals.signal(other.name, "requests", 200)  # while nobody listens
    with monitor(broker.bootstrap, port) as process:
        signals.wait_for_shares({one.name: (0.0, 0.0), other.name: (1.0, 0.0)}, killed_us)  # windows begin anew
        signals.signal(one.name, "requests", 600)
        signals.wait_for_shares({one.name: (0.75, 0.0), other.name: (0.25, 0.0)}, killed_us)
        third = signals.declare(f"{topic_prefix}-c"[-60:].lstrip("-0123456789"))
        for waiting in itertools.count():
            health = page(port, "health")
            assert isinstance(health, dict)
            if third.name in health["models"]:
                break
            assert waiting < 200
            time.sleep(0.2)
        signals.wait_until_heard(third.name)
        signals.signal(third.name, "requests", 600)
        signals.signal(one.name, "requests", 200)
        signals.wait_for_shares({one.name: (0.25, 0.0), third.name: (0.75, 0.0)}, killed_us)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0


@contextmanager
def changelogs_cut_by_retention(cluster: KafkaCluster, bootstrap: str) -> Iterator[None]:
    """What an Ekko that kept changelogs has left behind, its beginning gone: Faust's recovery never came to its end."""
    partitions = [Partition(f"ekko-monitor-{table}-changelog", 0) for table in ("windows", "samples")]
    cluster.create_topics(TopicSpec(partition.topic, 1) for partition in partitions)
    writer = cluster.writer()
    for partition in partitions:
        for _ in range(3):
            writer.send(Output(partition, b"0.0", b"0"))
    assert writer.flush(10) == 0
    admin = AdminClient({"bootstrap.servers": bootstrap})
    cut = [TopicPartition(*partition, bounds.end - 1) for partition, bounds in cluster.bounds(partitions).items()]
    for future in admin.delete_records(cut).values():
        future.result(10)
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
    deadline = time.monotonic() + 90
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


def test_a_model_that_gets_worse_is_proposed_as_corrupt(signals: Signals, broker: Broker, topic_prefix: str) -> None:
    """Serving reports both cohorts; from some second on the live one is much worse."""
    port = free_port()
    name = signals.declare(f"{topic_prefix}-x"[-60:].lstrip("-0123456789")).name
    partition = Partition(topics.signals(name), 0)
    proposals = ProposalReader(signals.cluster, Codec(), ModelDeclaration(name))

    def serve(live: float, until: Verdict) -> tuple[float, Proposal]:
        """Report twice a second until the monitor says so: what it said, and the seconds until it saw something."""
        start_s, deadline = time.time(), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for cohort, loss in (("live", live), ("baseline", 0.5)):
                now_us = int(time.time() * 1e6)
                signals.send(
                    Output(partition, encode(Signal(name, "e", "s/1", "log_loss", loss * 99, 99, now_us, cohort)))
                )
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
