"""A monitor that was away: what happened to trainers meanwhile it reads back, on a real broker."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import ENDED, PUBLISHED, TRAINER, TRAINERS_HEARD, Signal
from ekko.streams.health.trainers import LEAST_S
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition
from ekko.streams.manager.automatic import ProposalReader
from tests.ports import free_port
from tests.streams.monitor_child import Signals, monitor, page
from tests.waiting import PATIENCE_S, wait_for


class Fanout:
    """Tells of trainers, some seconds' worth at once: fan-outs count the time, and not the monitor."""

    def __init__(self, signals: Signals, model: str) -> None:
        self.signals, self.model = signals, model
        self.now_s = time.time() - 600

    def seconds(self, count: int, *trainers: str) -> None:
        for _ in range(count):
            self.now_s += 1
            for trainer in trainers:
                self._send(PUBLISHED, TRAINER + trainer)
            self._send(TRAINERS_HEARD, "fanout/a")
        assert self.signals.writer.flush(120) == 0

    def end(self, trainer: str) -> None:
        self._send(ENDED, TRAINER + trainer)

    def _send(self, metric: str, source: str) -> None:
        message = Signal(self.model, "east", source, metric, 1.0, 1, int(self.now_s * 1e6))
        self.signals.writer.send(Output(Partition(topics.signals(self.model), 0), encode(message)))


def silent(port: int, model: str) -> list[str]:
    health = page(port, "health")
    assert isinstance(health, dict)
    return sorted(health["silent_trainers"][model])


@pytest.fixture
def fanout(kafka: KafkaCluster, broker: Broker, topic_prefix: str) -> Iterator[Fanout]:
    signals = Signals(kafka, broker.bootstrap)
    yield Fanout(signals, signals.declare(f"{topic_prefix}-q"[-60:].lstrip("-0123456789")).name)
    signals.writer.close()


class Told:
    """Every proposal of monitors about a model, from now on."""

    def __init__(self, cluster: KafkaCluster, model: str) -> None:
        self._reader = ProposalReader(cluster, Codec(), ModelDeclaration(model))
        self.verdicts: set[Verdict] = set()

    def until(self, verdict: Verdict, reason: str = "") -> None:
        """Wait for this verdict with these words in its reason."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            proposal = self._reader.poll()
            if proposal is not None:
                self.verdicts.add(proposal.verdict)
                if proposal.verdict is verdict and reason in proposal.reason:
                    return
            time.sleep(0.1)
        raise AssertionError(f"no {verdict} {reason!r} among {self.verdicts}")

    def for_seconds(self, count: float) -> set[Verdict]:
        """Every verdict that is told within so many seconds, or until there is any."""
        self.verdicts.clear()
        begun = time.monotonic()
        while time.monotonic() < begun + count or (not self.verdicts and time.monotonic() < begun + PATIENCE_S):
            self.verdicts |= {proposal.verdict for proposal in [self._reader.poll()] if proposal is not None}
            time.sleep(0.1)
        return self.verdicts

    def close(self) -> None:
        self._reader.close()


def test_who_died_while_no_monitor_ran_is_named_by_the_next_one_and_the_one_after(
    fanout: Fanout, broker: Broker
) -> None:
    name, port = fanout.model, free_port()
    fanout.seconds(20, "dies", "ends", "goes-on")
    fanout.end("ends")
    fanout.seconds(int(LEAST_S) + 5, "goes-on")
    told = Told(fanout.signals.cluster, name)
    with monitor(broker.bootstrap, port) as process:
        told.until(Verdict.SUSPECT, "trainer dies has published nothing for 36 s")
        assert silent(port, name) == ["dies"]
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(120) == 0
    fanout.seconds(5, "goes-on")  # while none runs
    with monitor(broker.bootstrap, port):
        told.until(Verdict.SUSPECT, "trainer dies has published nothing for 41 s")
        fanout.seconds(5, "goes-on")
        told.until(Verdict.SUSPECT, "trainer dies has published nothing for 46 s")
        assert told.verdicts == {Verdict.SUSPECT}, "nobody called the model healthy"
        fanout.seconds(1, "dies", "goes-on")
        told.until(Verdict.HEALTHY)
    told.close()


def test_of_two_monitors_only_the_one_that_is_given_the_signals_speaks(fanout: Fanout, broker: Broker) -> None:
    name, ports = fanout.model, [free_port(), free_port()]
    fanout.seconds(20, "dies", "goes-on")
    fanout.seconds(int(LEAST_S) + 5, "goes-on")
    told = Told(fanout.signals.cluster, name)
    with monitor(broker.bootstrap, ports[0]), monitor(broker.bootstrap, ports[1]):
        wait_for(lambda: sorted(silent(port, name) for port in ports) == [[], ["dies"]])
        assert told.for_seconds(11) == {Verdict.SUSPECT}, "healthy is said every ten seconds"
    told.close()
