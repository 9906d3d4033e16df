"""`ekko monitor` as a real process, and what sends it signals."""

import json
import math
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from confluent_kafka.admin import AdminClient

from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConnectionFailed
from ekko.schemas.signals import Shares, Signal
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, read_all
from ekko.streams.monitor.settings import GROUP
from tests.waiting import PATIENCE_S, wait_for

AHEAD_S = 60.0
"""Signals are dated so far ahead, so that they are late for no bucket, however busy the machine is."""


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
        assert self.writer.flush(120) == 0

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
        while self._places(partitions).keys() != set(partitions):
            assert time.monotonic() < deadline, self._places(partitions)
            for model in models:
                self.signal(model, "counts for nothing", 0.0)
            time.sleep(0.5)

    def wait_until_committed(self, *models: str) -> None:
        """Wait until the monitor's group stands at the end: before its first commit it has no place."""
        partitions = [Partition(topics.signals(model), 0) for model in models]
        ends = {partition: bounds.end for partition, bounds in self.cluster.bounds(partitions).items()}
        wait_for(lambda: self._places(partitions) == ends, what="the monitor's group stands at the end")

    def _places(self, partitions: list[Partition]) -> dict[Partition, int]:
        """Where the monitor's group stands; nowhere where a broker that has just started does not know it yet."""
        with closing(self.cluster.group(GROUP)) as group, suppress(ConnectionFailed):
            return {at: place.offset for at, place in group.committed(partitions).items()}
        return {}

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
            assert time.monotonic() - start < PATIENCE_S, found
            time.sleep(0.2)


class Clock:
    """Times of reports, half a second apart with none left out, so far ahead of real ones as is asked."""

    def __init__(self) -> None:
        self.now_s = time.time()

    def ticks(self, ahead_s: float) -> Iterator[float]:
        """Those that have come since the last call."""
        while self.now_s < time.time() + ahead_s:
            self.now_s += 0.5
            yield self.now_s


@contextmanager
def monitor(bootstrap: str, port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name("ekko")), "monitor", "--bootstrap", bootstrap, "--port", str(port)]
    process = subprocess.Popen([*command, "--interval", "0.5", "--window", "600", *options])
    try:
        yield process
    finally:
        process.kill()
        process.wait(120)


def page(port: int, name: str) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}/", timeout=60) as reply:
            return json.load(reply)
        assert time.monotonic() < deadline
        time.sleep(0.2)
