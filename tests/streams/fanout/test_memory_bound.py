"""More bulk than memory: the bound is kept, what was forgotten is computed again, and nothing is lost."""

import numpy as np
import pytest
from prometheus_client import REGISTRY

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.log import Output, Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from tests.simulation.checks.seqs import check_seqs_contiguous
from tests.simulation.checks.settled import check_all_settled, check_settled_is_honest
from tests.simulation.lanes import read_region
from tests.simulation.truth import Truth

MODEL, REGION, DIM = "ctr", "east", 8
BOUND = 128 * 1024


class Flood:
    """One shard, a thin link, and many more rows than fit in memory."""

    def __init__(self, bandwidth: float) -> None:
        self.now_s = 1_000.0
        self.broker = MemoryBroker(lambda: self.now_s)
        self.cluster = MemoryCluster(self.broker)
        self.catalogue_end = self.incarnation = 0
        self.declare("t")
        self.settings = FanoutSettings(
            bandwidth_bytes_per_s=bandwidth, express_percentile=99.0, pending_bytes=BOUND, bulk_max_age_s=0.1
        )
        self.fanout = self.start()
        self.random = np.random.default_rng(1)
        self.epoch, self.largest, self.forgot = 0, 0, False

    def start(self) -> RegionFanout:
        return RegionFanout(
            self.cluster, self.cluster, REGION, settings=self.settings, clock=lambda: self.now_s, instance="one"
        )

    def declare(self, *tables: str) -> None:
        model = ModelDeclaration(MODEL, shards=1, tables=tuple(TableDeclaration(name, DIM) for name in tables))
        declare(self.cluster, Declarations((RegionDeclaration(REGION),), (model,)), lambda _: self.cluster)
        catalogue = Catalogue(self.cluster)
        self.catalogue_end = catalogue.refresh()
        self.incarnation = catalogue.model(MODEL).incarnation or 0

    def append(self, message: object) -> None:
        writer = self.cluster.transactional_writer("test")
        writer.transact([Output(Partition(topics.deltas(MODEL), 0), encode(message))])

    def publish(self, rows: int, keys: int, table: str = "t") -> None:
        chosen = np.sort(self.random.choice(keys, rows, replace=False)).astype(np.uint64)
        deltas = self.random.integers(-1000, 1000, (rows, DIM), dtype=np.int32)
        published_us, catalogue = int(self.now_s * 1e6), self.catalogue_end
        self.append(
            DeltaBlock(self.incarnation, table, 0, chosen, deltas, catalogue=catalogue, published_us=published_us)
        )

    def barrier(self) -> None:
        self.epoch += 1
        self.append(Barrier(self.incarnation, self.epoch, 0, self.catalogue_end))

    def step(self) -> bool:
        self.now_s += 0.02
        done = self.fanout.step(self.now_s)
        for group in self.fanout.groups.values():
            assert group.failure is None
            for shard in group._shards.values():
                self.largest = max(self.largest, shard.pending.nbytes)
                self.forgot = self.forgot or bool(shard.forgotten)
        return done

    def drain(self) -> None:
        for _ in range(30_000):
            busy = self.step()
            shards = [shard for group in self.fanout.groups.values() for shard in group._shards.values()]
            if not busy and not any(shard.pending.rows or shard.forgotten for shard in shards):
                return
        raise AssertionError("it does not drain")

    def check(self) -> None:
        truth = Truth(self.broker, MODEL)
        log = read_region(self.broker, MODEL, REGION, 1)
        check_seqs_contiguous(log)
        check_settled_is_honest(truth, log)
        check_all_settled(truth, log)


@pytest.mark.parametrize("kill", [False, True])
def test_a_backlog_many_times_the_bound_is_sent_in_full(*, kill: bool) -> None:
    flood = Flood(bandwidth=60_000.0)
    for turn in range(60):
        flood.publish(rows=500, keys=6_000)
        flood.step()
        if turn % 20 == 19:
            flood.barrier()
        if kill and turn % 15 == 14:
            flood.fanout = flood.start()
    flood.barrier()
    flood.drain()
    assert flood.forgot
    assert flood.largest <= 2 * BOUND
    flood.check()


def test_killed_while_it_computes_again() -> None:
    flood = Flood(bandwidth=60_000.0)
    for _ in range(20):
        flood.publish(rows=500, keys=6_000)
        flood.step()
    flood.barrier()
    flood.barrier()
    for _ in range(6):
        for _ in range(40):
            flood.step()
        flood.fanout = flood.start()
    flood.drain()
    flood.check()


def test_while_it_computes_again_express_goes_on() -> None:
    flood = Flood(bandwidth=40_000.0)
    for _ in range(20):
        flood.publish(rows=500, keys=6_000)
        flood.step()
    flood.barrier()
    flood.step()
    sent = len(read_region(flood.broker, MODEL, REGION, 1).shards[0])
    hot = np.array([7], np.uint64)
    for turn in range(5):
        deltas = np.full((1, DIM), 10**6, np.int32)
        flood.append(DeltaBlock(flood.incarnation, "t", 0, hot, deltas, published_us=int(flood.now_s * 1e6)))
        flood.step()
        blocks = [entry.block for entry in read_region(flood.broker, MODEL, REGION, 1).shards[0][sent:]]
        hits = [block for block in blocks if 7 in block.keys and block.arrival == flood.epoch]
        assert len(hits) == turn + 1, "an urgent row leaves in the step in which it comes"
    flood.barrier()
    flood.drain()
    flood.check()


def test_prometheus_is_told_how_old_what_waits_is_and_of_a_group_that_fails() -> None:
    def told(figure: str) -> float | None:
        labels = {"region": REGION, "model": MODEL, "group": "0"}
        return REGISTRY.get_sample_value(f"ekko_fanout_{figure}", labels)

    flood = Flood(bandwidth=1_000.0)
    published_s = flood.now_s
    flood.publish(rows=500, keys=6_000)
    for _ in range(50):
        flood.step()
    assert (told("pending_rows") or 0) > 0
    assert told("pending_age_seconds") == pytest.approx(flood.now_s - published_s)
    assert REGISTRY.get_sample_value("ekko_fanout_bulk_max_age_seconds", {"region": REGION}) == 0.1
    assert told("failing") == 0
    region = flood.fanout._context.region.incarnation
    assert region is not None
    flood.cluster.transactional_writer(topics.fanout_transactional_id(MODEL, flood.incarnation, REGION, region, 0))
    flood.barrier()
    flood.now_s += 0.02
    flood.fanout.step(flood.now_s)
    assert told("failing") == 1, "somebody else has fenced it"
    for _ in range(200):
        flood.now_s += 0.02
        flood.fanout.step(flood.now_s)
    assert told("failing") == 0
    (group,) = flood.fanout.groups.values()
    group.retire()
    assert told("pending_age_seconds") is None, "it is another instance's now"


@pytest.mark.parametrize("bandwidth", [60_000.0, 400_000.0])
def test_blocks_that_waited_for_a_barrier_are_many_times_the_bound(bandwidth: float) -> None:
    flood = Flood(bandwidth)
    flood.barrier()
    flood.declare("t", "late")
    for _ in range(12):
        flood.publish(rows=500, keys=6_000, table="late")  # in the catalogue's millisecond: only a barrier proves it
    flood.step()
    held = [shard.intake.held for group in flood.fanout.groups.values() for shard in group._shards.values()]
    assert held == [12]
    flood.barrier()
    flood.barrier()
    for _ in range(12):
        for _ in range(6):
            flood.step()
        flood.fanout = flood.start()
    flood.drain()
    flood.check()
