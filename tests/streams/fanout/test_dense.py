"""Dense tables have a cadence of their own: exact sums once in so many seconds, before other bulk, never scored."""

from dataclasses import replace

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
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
from tests.simulation.lanes import read_region

MODEL, REGION, DIM, ROWS, EVERY_S = "ctr", "east", 4, 16, 1.0
STEP_S = 0.02


class Stage:
    """One shard with an embedding and a dense tensor of 16 slices; time passes in steps."""

    def __init__(self, bandwidth: float | None = None) -> None:
        self.now_s = 1_000.0
        self.broker = MemoryBroker(lambda: self.now_s)
        self.cluster = MemoryCluster(self.broker)
        self.embedding = TableDeclaration("embedding", DIM, fraction_bits=0)
        self.dense = TableDeclaration("dense", DIM, fraction_bits=0, send_every_s=EVERY_S)
        self.declare(self.dense)
        self.settings = FanoutSettings(bandwidth_bytes_per_s=bandwidth, express_percentile=90.0)
        self.fanout = self.start()
        self._writer = self.cluster.transactional_writer("test")
        self.random, self.epoch, self.total = np.random.default_rng(3), 0, np.zeros((ROWS, DIM), np.int32)

    def declare(self, dense: TableDeclaration) -> None:
        model = ModelDeclaration(MODEL, shards=1, tables=(self.embedding, dense))
        declare(self.cluster, Declarations((RegionDeclaration(REGION),), (model,)), lambda _: self.cluster)
        catalogue = Catalogue(self.cluster)
        self.catalogue_end = catalogue.refresh()
        self.incarnation = catalogue.model(MODEL).incarnation or 0

    def start(self) -> RegionFanout:
        return RegionFanout(
            self.cluster, self.cluster, REGION, settings=self.settings, clock=lambda: self.now_s, instance="one"
        )

    def publish(self, table: str, keys: np.ndarray, deltas: np.ndarray) -> None:
        block = DeltaBlock(
            self.incarnation,
            table,
            0,
            keys,
            deltas.astype(np.int32),
            catalogue=self.catalogue_end,
            published_us=int(self.now_s * 1e6),
        )
        self._writer.transact([Output(Partition(topics.deltas(MODEL), 0), encode(block))])

    def publish_dense(self, size: int = 50) -> None:
        deltas = self.random.integers(-size, size, (ROWS, DIM), dtype=np.int32)
        self.total += deltas
        self.publish("dense", np.arange(ROWS, dtype=np.uint64), deltas)

    def barrier(self) -> None:
        self.epoch += 1
        value = encode(Barrier(self.incarnation, self.epoch, 0, self.catalogue_end))
        self._writer.transact([Output(Partition(topics.deltas(MODEL), 0), value)])

    def step(self, seconds: float = STEP_S) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            self.fanout.step(self.now_s)

    def sent(self, table: str) -> list[tuple[Lane, LaneBlock]]:
        entries = read_region(self.broker, MODEL, REGION, 1).shards[0]
        return [(entry.lane, entry.block) for entry in entries if entry.block.table == table]

    def arrived(self) -> np.ndarray:
        total = np.zeros((ROWS, DIM), np.int32)
        for _, block in self.sent("dense"):
            total[block.keys.astype(np.intp)] += block.deltas
        return total


def test_the_whole_tensor_goes_once_in_a_while_as_one_exact_sum() -> None:
    stage = Stage()
    for _ in range(40):
        stage.publish_dense()
        stage.step(0.1)
    blocks = stage.sent("dense")
    assert {lane for lane, _ in blocks} == {Lane.BULK}
    assert [len(block.keys) for _, block in blocks] == [ROWS] * 4  # at 0, 1, 2 and 3 s, of 40 that were published
    stage.step(EVERY_S)
    assert np.array_equal(stage.arrived(), stage.total)


def test_rows_of_other_tables_do_not_wait_for_it() -> None:
    stage = Stage()
    stage.publish_dense()
    stage.step(0.1)
    stage.publish_dense()
    stage.publish("embedding", np.arange(100, dtype=np.uint64), np.ones((100, DIM)))
    stage.step()
    assert sum(len(block.keys) for _, block in stage.sent("embedding")) == 100
    assert len(stage.sent("dense")) == 1


def test_it_is_not_scored() -> None:
    """Its norms are a thousand times larger: counted, they would keep every embedding row out of express."""
    stage = Stage()
    for _ in range(5):
        stage.publish_dense(100_000)
        stage.step(0.1)
    stage.publish("embedding", np.arange(100, dtype=np.uint64), np.arange(1, 101)[:, None] * np.ones((1, DIM)))
    stage.step()
    express = [block for lane, block in stage.sent("embedding") if lane is Lane.EXPRESS]
    assert sum(len(block.keys) for block in express) == 11


def test_the_end_of_an_epoch_sends_what_it_left() -> None:
    stage = Stage()
    stage.publish_dense()
    stage.step(0.1)
    stage.publish_dense()
    stage.step(0.1)
    stage.barrier()
    stage.step(2 * STEP_S)
    assert np.array_equal(stage.arrived(), stage.total), "a state is not complete without it"
    stage.publish_dense()
    stage.step(0.1)
    assert not np.array_equal(stage.arrived(), stage.total), "the next epoch's waits for its time again"


def test_on_a_thin_link_it_keeps_its_cadence_beside_a_backlog() -> None:
    stage = Stage(bandwidth=20_000.0)
    for start in range(0, 40_000, 2_000):  # half a minute's worth
        stage.publish("embedding", np.arange(start, start + 2_000, dtype=np.uint64), np.full((2_000, DIM), 7))
    for _ in range(30):
        stage.publish_dense()
        stage.step(0.1)
    stage.step(EVERY_S + 0.2)
    assert np.array_equal(stage.arrived(), stage.total)
    assert sum(len(block.keys) for _, block in stage.sent("embedding")) < 20_000


def test_killed_while_it_gathers_nothing_is_lost_or_sent_twice() -> None:
    stage = Stage()
    for _ in range(6):
        for _ in range(4):
            stage.publish_dense()
            stage.step(0.1)
        stage.fanout = stage.start()  # another process of this name: the first is fenced
    stage.step(2 * EVERY_S)
    assert np.array_equal(stage.arrived(), stage.total)


def test_its_cadence_can_be_changed_while_it_runs() -> None:
    stage = Stage()
    stage.publish_dense()
    stage.step(0.1)
    stage.declare(replace(stage.dense, send_every_s=0.0))
    stage.step()
    stage.publish_dense()
    stage.step(0.1)
    assert np.array_equal(stage.arrived(), stage.total)
