"""Fan-out processes killed with SIGKILL at random moments: nothing lost, nothing twice (cases 1, 2, 8)."""

import random
import time
from collections.abc import Callable

import numpy as np

from ekko.streams.kafka import KafkaCluster
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs
from tests.streams.fanout.waiting import wait_for


def publish_for(source: Source, seconds: float, act: Callable[[], None], every_s: float) -> None:
    """Publish without pause and open an epoch now and then, while something happens every so often."""
    random_ = np.random.default_rng(11)
    began = time.monotonic()
    acted = opened = began
    while time.monotonic() < began + seconds:
        source.publish(np.unique(random_.zipf(1.3, 400).astype(np.uint64) % 3_000))
        if time.monotonic() > acted + every_s:
            acted = time.monotonic()
            act()
        if time.monotonic() > opened + 0.7:
            opened = time.monotonic()
            source.barrier()
        time.sleep(0.005)


def test_killed_again_and_again_under_load_with_a_backlog(
    kafka: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    name = topic_prefix
    source = Source(kafka, name, shards=2, dim=8)
    starved = f"[region.{name}]\nbandwidth_bytes_per_s = 60_000\nexpress_percentile = 90.0\n"
    processes = [start_fanout(name, config=starved)]
    dice = random.Random(3)

    def kill() -> None:
        time.sleep(dice.random() * 0.2)
        processes[-1].kill()
        processes[-1].wait(10)
        processes.append(start_fanout(name, config=starved))

    publish_for(source, 14.0, kill, every_s=2.5)
    processes[-1].kill()
    processes[-1].wait(10)
    source.barrier()
    assert len(processes) >= 5
    backlog = settled_epochs(read_lanes(kafka, name, name))
    assert min(backlog) < source.epoch, "the last one had something to rebuild"
    start_fanout(name)
    wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [source.epoch] * 2, 40)
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
        assert process.wait(10) == 0
    check_exact(kafka, source, source.name)
