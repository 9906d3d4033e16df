"""The scenes of `detection` in real time, through Kafka and a real monitor: `python -m tests.bench.detection_live`.

One model a way to go bad, and one that stays clean. `detection_s` runs from the first signal with something poisoned in
it to the moment at which a reader of the topic gets the verdict `corrupt`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Signal
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition
from ekko.streams.manager.automatic import ProposalReader
from tests.bench.detection import WAYS, Scene, Way
from tests.ports import free_port

CLEAN = "clean"
SECONDS, POISON_AT = 110, 70


class Played:
    """A model, its scene, and what the monitor has said of it."""

    def __init__(self, name: str, way: Way, cluster: KafkaCluster) -> None:
        self.name, self.way = name, way
        self.scene = Scene(100)
        self.poisoned_s: float | None = None
        self.corrupt_s: float | None = None
        self._cluster = cluster
        self._writer = cluster.writer()
        self._proposals = ProposalReader(cluster, Codec(), ModelDeclaration(self.topic))

    @property
    def topic(self) -> str:
        """The model's name in the catalogue."""
        return self.name.replace("_", "-")

    def second(self, number: int) -> None:
        """Serve, learn, and report, as of now."""
        poisoned = number >= POISON_AT
        self.scene.second(number, self.way if poisoned else Way())
        now_us = int(time.time() * 1e6)
        for (metric, cohort, start_s), total in self.scene.totals.items():
            if start_s == number:
                signal = Signal(self.topic, "east", "bench/1", metric, total.sum, int(total.count), now_us, cohort)
                self._writer.send(Output(Partition(topics.signals(self.topic), 0), encode(signal)))
        if poisoned and self.poisoned_s is None:
            self.poisoned_s = time.monotonic()
        self._writer.poll(0.0)

    def listen(self) -> None:
        """Take in what the monitor says."""
        proposal = self._proposals.poll()
        if proposal is not None and proposal.verdict is Verdict.CORRUPT and self.corrupt_s is None:
            self.corrupt_s = time.monotonic()
            sys.stdout.write(f"{self.name}: corrupt: {proposal.reason}\n")


@contextmanager
def _monitor(bootstrap: str) -> Iterator[None]:
    command = [str(Path(sys.executable).with_name("ekko")), "monitor", "--bootstrap", bootstrap]
    process = subprocess.Popen([*command, "--port", str(free_port())])
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _play(played: list[Played]) -> None:
    start_s = time.monotonic()
    for number in range(SECONDS):
        for one in played:
            one.second(number)
        while time.monotonic() < start_s + number + 1:
            for one in played:
                one.listen()
            time.sleep(0.02)


def live_detection() -> dict[str, object]:
    """Seconds to the verdict by way, the slowest one's, and whether the clean model was called corrupt."""
    ways = {**WAYS, CLEAN: Way()}
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="ekko-bench-"))
        broker = opened.enter_context(Broker(Path(folder) / "broker"))
        kafka = opened.enter_context(closing(KafkaCluster(broker.bootstrap)))
        models = tuple(ModelDeclaration(name.replace("_", "-"), shards=1) for name in ways)
        declare(kafka, Declarations((RegionDeclaration("east"),), models), lambda _: kafka)
        played = [Played(name, way, kafka) for name, way in ways.items()]
        opened.enter_context(_monitor(broker.bootstrap))
        _play(played)
    found = {
        one.name: None if one.corrupt_s is None or one.poisoned_s is None else round(one.corrupt_s - one.poisoned_s, 1)
        for one in played
        if one.name != CLEAN
    }
    slowest = None if None in found.values() else max(seconds for seconds in found.values() if seconds is not None)
    alarms = next(one.corrupt_s is not None for one in played if one.name == CLEAN)
    return {"detection_live_s": slowest, "detection_live_by_way_s": found, "clean_model_called_corrupt": alarms}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(live_detection()) + "\n")
