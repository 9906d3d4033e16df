"""The random interleavings of the specification, at full width, with a real takeover after each kill.

What must hold is stated by the simulation's checkers, which recompute everything from the raw source log.
"""

import random
from dataclasses import replace

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.hashing import shard_of
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.log import Output, Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from tests.simulation.checks.as_of import check_lanes_as_of
from tests.simulation.checks.rejections import check_rejections
from tests.simulation.checks.seqs import check_barriers_forwarded, check_seqs_contiguous
from tests.simulation.checks.settled import check_all_settled, check_settled_is_honest
from tests.simulation.lanes import read_region
from tests.simulation.truth import Truth

MODEL = "ctr"
SHARDS = 2
TABLES = (TableDeclaration("wide", 3), TableDeclaration("deep", 1, fraction_bits=8))


class World:
    """A source log, what is written to it, and two regions of which one is starved of bandwidth."""

    def __init__(self, seed: int) -> None:
        self.rng, self.random = random.Random(seed), np.random.default_rng(seed)
        self.now_s = 1000.0
        self.broker = MemoryBroker(lambda: self.now_s)
        self.cluster = MemoryCluster(self.broker)
        model = ModelDeclaration(MODEL, shards=SHARDS, shard_groups=self.rng.randint(1, SHARDS), tables=TABLES)
        regions = (RegionDeclaration("east"), RegionDeclaration("west"))
        declare(self.cluster, Declarations(regions, (model,)), lambda _: self.cluster)
        self.epoch = self.generation = self.trainer_generation = 0
        self.voids: tuple[EpochRange, ...] = ()
        self.withdrawn: set[int] = set()
        self.withdrawals = self.rng.choice((0.0, 0.3, 0.8))
        self.last: list[DeltaBlock] = []
        self.settings = {
            "east": FanoutSettings(express_percentile=50.0),
            "west": FanoutSettings(
                express_percentile=self.rng.choice((0.0, 70.0, 100.0)),
                bandwidth_bytes_per_s=900.0,
                pending_bytes=self.rng.choice((2**30, 4_000 * SHARDS)),  # the little one forgets and computes again
            ),
        }
        self.fanouts = {region: self.start(region) for region in self.settings}
        catalogue = Catalogue(self.cluster)
        self.catalogue_end = catalogue.refresh()
        self.incarnation = catalogue.model(MODEL).incarnation or 0

    def start(self, region: str) -> RegionFanout:
        return RegionFanout(
            self.cluster, self.cluster, region, settings=self.settings[region], clock=lambda: self.now_s
        )

    def publish(self) -> None:
        self.last = []
        table = self.rng.choice(TABLES)
        keys = self.random.choice(20, size=self.rng.randint(1, 12), replace=False).astype(np.uint64)
        shards = shard_of(keys, SHARDS)
        retracts = self.rng.random() < 0.1
        bad = self.rng.random() < 0.03
        for shard in set(shards.tolist()):
            mine = keys[shards == shard]
            wide = self.rng.random() < 0.2  # any int32 at all: sums wrap around
            bound = 2**31 if wide else 100
            block = DeltaBlock(
                incarnation=self.incarnation,
                table="nowhere" if bad else table.name,
                shard=shard,
                keys=mine,
                deltas=self.random.integers(-bound, bound, (len(mine), table.dim), dtype=np.int32),
                created=self.random.random(len(mine)) < 0.2,
                purpose=Purpose.RETRACT if retracts else Purpose.TRAIN,
                generation=self.trainer_generation,
                effective=self.rng.randint(0, self.epoch) if retracts else None,
                published_us=int(self.now_s * 1e6),
            )
            self.last.append(block)
            self.append({shard: encode(block)})

    def take_back(self) -> None:
        """What was published last is taken back at once: its rows come to nothing, sent or not."""
        for block in self.last:
            opposite = replace(block, deltas=-block.deltas, generation=self.trainer_generation)
            self.append({block.shard: encode(opposite)})

    def append(self, values: dict[int, bytes]) -> None:
        writer = self.cluster.transactional_writer("test")
        writer.transact([Output(Partition(topics.deltas(MODEL), shard), value) for shard, value in values.items()])
        writer.close()

    def open_epoch(self, *, rollback: bool) -> None:
        if rollback:
            targets = range(self.voids[-1].last + 1 if self.voids else 0, self.epoch + 1)
            first = self.rng.choice([state for state in targets if state not in self.withdrawn])
            self.voids += (EpochRange(first, self.epoch),)
            self.generation += 1
        else:
            self.withdrawn |= {state for state in range(1, self.epoch) if self.rng.random() < self.withdrawals}
        self.epoch += 1
        withdrawn = tuple(EpochRange(state, state) for state in sorted(self.withdrawn))
        barrier = Barrier(self.incarnation, self.epoch, self.generation, self.catalogue_end, self.voids, withdrawn)
        self.append({shard: encode(barrier) for shard in range(SHARDS)})

    def tick(self) -> None:
        dice = self.rng.random()
        if dice < 0.5:
            self.publish()
        elif dice < 0.58:
            self.open_epoch(rollback=False)
        elif dice < 0.61:
            self.open_epoch(rollback=True)
        elif dice < 0.68:
            self.take_back()
        if self.rng.random() < 0.3:
            self.trainer_generation = self.generation
        self.now_s += self.rng.choice((0.0, 0.01, 0.2))
        for region in self.fanouts:
            if self.rng.random() < 0.6:
                self.fanouts[region].step(self.now_s)
            if self.rng.random() < 0.08:  # kill -9: nothing is closed, another one takes over
                self.fanouts[region] = self.start(region)

    def drain(self) -> None:
        for _ in range(2000):
            self.now_s += 0.1
            busy = [fanout.step(self.now_s) for fanout in self.fanouts.values()]
            groups = [group for fanout in self.fanouts.values() for group in fanout.groups.values()]
            shards = [shard for group in groups for shard in group._shards.values()]
            # A step in which nothing is done is no end: on a thin link it may be too early for the next transaction.
            if not any(busy) and all(shard.settled.epoch == self.epoch for shard in shards):
                return
        raise AssertionError("what waits does not drain")


@pytest.mark.parametrize("seed", range(60))
def test_every_interleaving_is_exact_and_settled_is_honest(seed: int) -> None:
    world = World(seed)
    for _ in range(world.rng.randint(20, 120)):
        world.tick()
    world.open_epoch(rollback=False)
    world.open_epoch(rollback=False)
    world.drain()
    truth = Truth(world.broker, MODEL)
    logs = [read_region(world.broker, MODEL, region, SHARDS) for region in world.fanouts]
    for log in logs:
        check_seqs_contiguous(log)
        check_barriers_forwarded(log, truth.epoch)
        check_settled_is_honest(truth, log)
        check_all_settled(truth, log)
        check_lanes_as_of(truth, log)
    check_rejections(truth, logs)
