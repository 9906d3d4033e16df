"""A region behind a link that is thin, slow or cut: all arrives once, and nobody else notices (cases 9, 42, 43)."""

import random
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import RegionDeclaration
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition
from tests.network.link import FarBroker
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs
from tests.waiting import PATIENCE_S, wait_for


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarBroker]:
    with FarBroker(tmp_path_factory.mktemp("far-broker")) as far:
        yield far


@pytest.fixture
def near(far: FarBroker) -> Iterator[KafkaCluster]:
    """The far cluster as those see it who are near it."""
    cluster = KafkaCluster(far.near, timeout_s=60.0)
    yield cluster
    cluster.close()
    far.link.heal()
    far.link.limit(0)
    far.link.delay(0)


def publish(source: Source, dice: np.random.Generator) -> None:
    source.publish(np.unique(dice.zipf(1.2, 600).astype(np.uint64) % 4_000))


def storm(source: Source, far: FarBroker, start: Start, *, events: int, pause_s: float, seed: int) -> None:
    """Publish without pause while the link is cut and thinned and the fan-out killed, so many times."""
    random_, dice = random.Random(seed), np.random.default_rng(seed)
    config = f"[region.{source.name}]\nbandwidth_bytes_per_s = 400_000\nexpress_percentile = 90.0\n"
    process = start(source.name, config=config)
    for _ in range(events):
        until = time.monotonic() + pause_s * (0.5 + random_.random())
        event = random_.choice(("cut", "kill", "thin", "slow"))
        if event == "cut":
            far.link.cut()
        elif event == "kill":
            process.kill()
            process.wait(120)
            process = start(source.name, config=config)
        elif event == "thin":
            far.link.limit(random_.choice((30_000, 200_000)))
        else:
            far.link.delay(random_.choice((0.02, 0.1)))
        while time.monotonic() < until:
            publish(source, dice)
            time.sleep(0.02)
        source.barrier()
        if random_.random() < 0.7:
            far.link.heal()
            far.link.limit(0)
            far.link.delay(0)


def end_of_storm(source: Source, far: FarBroker, near: KafkaCluster) -> None:
    """The weather clears: everything must arrive, once."""
    far.link.heal()
    far.link.limit(0)
    far.link.delay(0)
    source.barrier()
    name, want = source.name, [source.epoch] * source.shards
    wait_for(lambda: settled_epochs(read_lanes(near, name, name)) == want)
    check_exact(near, source, name)


def test_cut_thinned_delayed_and_killed_in_between(
    kafka: KafkaCluster, far: FarBroker, near: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    source = Source(kafka, topic_prefix, dim=16, regional=far.link.bootstrap)
    storm(source, far, start_fanout, events=7, pause_s=1.5, seed=5)
    end_of_storm(source, far, near)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_thirty_kills_and_cuts(
    kafka: KafkaCluster, far: FarBroker, near: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    source = Source(kafka, topic_prefix, dim=16, regional=far.link.bootstrap)
    storm(source, far, start_fanout, events=30, pause_s=2.5, seed=17)
    end_of_storm(source, far, near)


def test_the_budget_is_what_crosses_the_link(
    kafka: KafkaCluster, far: FarBroker, near: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    source, rate = Source(kafka, topic_prefix, dim=64, regional=far.link.bootstrap), 200_000.0
    start_fanout(source.name, config=f"[region.{source.name}]\nbandwidth_bytes_per_s = {rate}\n")
    dice = np.random.default_rng(2)

    def carried() -> float:
        """Bytes a second while more waits than the link may take."""
        for _ in range(12):  # ten seconds' worth; many values are alike, so that compressing halves them
            source.publish(np.unique(dice.integers(0, 10**6, 2_000).astype(np.uint64)), None)
        wait_for(lambda: len(read_lanes(near, source.name, source.name)) == source.shards)
        time.sleep(1.5)  # what was saved up is spent
        before, began = far.link.carried().up, time.monotonic()
        time.sleep(5.0)
        return (far.link.carried().up - before) / (time.monotonic() - began)

    right = pytest.approx(rate, rel=0.2)
    seen = [carried()]
    while seen[-1] != right and len(seen) < 6:  # on a busy machine it may come to less for a while, and to more then
        seen.append(carried())
    assert seen[-1] == right, "bytes a second, heads and announcements included"


class LaneWatch:
    """Latencies, publish to visible in the express and bulk lanes of a region, of each block, in milliseconds."""

    def __init__(self, cluster: KafkaCluster, name: str, region: str, shards: int) -> None:
        self._reader, self._codec = cluster.reader(), Codec()
        lanes = [Partition(topics.lane(name, region, lane), shard) for lane in Lane for shard in range(shards)]
        self._reader.assign({at: bounds.end for at, bounds in cluster.bounds(lanes).items()})
        self._stop = threading.Event()
        self.found: list[float] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.is_set():
            for record in self._reader.poll(0.02):
                block = self._codec.decode(record.value)
                if len(block.keys):
                    self.found.append(time.time() * 1e3 - block.published_us / 1e3)
        self._reader.close()

    def end(self) -> list[float]:
        self._stop.set()
        self._thread.join()
        return self.found


def test_a_throttled_and_a_dead_region_do_not_delay_the_others(
    kafka: KafkaCluster, far: FarBroker, near: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    source = Source(kafka, topic_prefix, dim=16)
    slow, dead = f"{topic_prefix}-s", f"{topic_prefix}-d"
    regions = (RegionDeclaration(slow, bootstrap=far.link.bootstrap), RegionDeclaration(dead))
    declare(kafka, Declarations(regions), lambda region: KafkaCluster(region.bootstrap))
    start_fanout(source.name)
    dice = np.random.default_rng(1)

    def measure() -> float:
        watch, deadline = LaneWatch(kafka, source.name, source.name, source.shards), time.monotonic() + PATIENCE_S
        while len(watch.found) < 60:
            assert time.monotonic() < deadline, f"{len(watch.found)} blocks"
            publish(source, dice)
            time.sleep(0.03)
        return float(np.median(watch.end()))

    publish(source, dice)
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, source.name, source.name)) == [1, 1])
    alone = measure()
    start_fanout(source.name, "--region", slow)
    far.link.limit(20_000)
    # A region whose cluster answers nobody: its fan-out tries in vain for as long as it runs.
    start_fanout(source.name, "--region", dead, "--region-bootstrap", "127.0.0.1:9")
    time.sleep(2.0)
    beside = measure()
    for _ in range(3):
        beside = min(beside, measure()) if beside >= alone + 2_000 else beside
    # The ratio itself is measured by `make bench-fanout`: a machine full of other tests must not fail this one. Waiting
    # for the slow or the dead region would take ten seconds and more.
    assert alone > 0
    assert beside < alone + 2_000, f"p50 {alone:.1f} ms alone, {beside:.1f} ms beside a slow and a dead region"
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, source.name, source.name)) == [source.epoch] * 2)
    far.link.limit(0)
    wait_for(lambda: settled_epochs(read_lanes(near, source.name, slow)) == [source.epoch] * 2)
    check_exact(kafka, source, source.name)
    check_exact(near, source, slow)
