"""Fan-out processes killed with SIGKILL at random moments: nothing lost, nothing twice (cases 1, 2, 8)."""

import random
import time

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs, sums_of
from tests.streams.visible import await_visible
from tests.waiting import PATIENCE_S, wait_for

KILLS = 5


class Victims:
    """Fan-out processes with little bandwidth, of which each is killed when it has sent something."""

    def __init__(self, kafka: KafkaCluster, name: str, start: Start) -> None:
        self._kafka, self._name, self._start = kafka, name, start
        self._dice = random.Random(3)
        self.kills = 0
        self._next()

    def _next(self) -> None:
        bandwidth = 60_000 if self.kills < KILLS - 1 else 6_000  # the last one has not nearly sent all when it goes
        config = f"[region.{self._name}]\nbandwidth_bytes_per_s = {bandwidth}\nexpress_percentile = 90.0\n"
        self._process = self._start(self._name, config=config)
        self._sent = self._end()

    def _end(self) -> int:
        lanes = [Partition(topics.lane(self._name, self._name, lane), shard) for lane in Lane for shard in range(2)]
        return sum(bounds.end for bounds in self._kafka.bounds(lanes).values())

    def kill(self, *, replace: bool = True) -> None:
        """Kill -9, if the process has begun its work, in the midst of something."""
        if self._end() < self._sent + 10:
            return
        time.sleep(self._dice.random() * 0.2)
        self._process.kill()
        self._process.wait(120)
        self.kills += 1
        if replace:
            self._next()


def test_killed_again_and_again_under_load_with_a_backlog(
    kafka: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    name = topic_prefix
    source = Source(kafka, name, shards=2, dim=8)
    victims = Victims(kafka, name, start_fanout)
    random_ = np.random.default_rng(11)
    began = opened = looked = time.monotonic()
    while victims.kills < KILLS:
        assert time.monotonic() < began + 2 * PATIENCE_S
        source.publish(np.unique(random_.zipf(1.3, 400).astype(np.uint64) % 3_000))
        if time.monotonic() > looked + 0.5:
            looked = time.monotonic()
            victims.kill(replace=victims.kills < KILLS - 1)
        if time.monotonic() > opened + 0.7:
            opened = time.monotonic()
            source.barrier()
        time.sleep(0.005)
    source.barrier()
    for lane in Lane:
        await_visible(kafka, topics.lane(name, name, lane))  # what was open has been aborted
    rows = sums_of(read_lanes(kafka, name, name))
    waiting = [at for at, row in source.published.items() if not np.array_equal(rows.get(at), row)]
    assert len(waiting) > 100, "the last one leaves something to rebuild"
    start_fanout(name)
    wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [source.epoch] * 2)
    check_exact(kafka, source, source.name)


def test_stopped_and_started_five_times(kafka: KafkaCluster, topic_prefix: str, start_fanout: Start) -> None:
    name = topic_prefix
    source = Source(kafka, name)
    for turn in range(5):
        process = start_fanout(name)
        source.publish(np.arange(turn, 40, dtype=np.uint64))
        source.barrier()
        wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [source.epoch] * 2)
        process.terminate()
        assert process.wait(120) == 0
    check_exact(kafka, source, source.name)
