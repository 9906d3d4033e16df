"""Pacing in virtual time: express at once, promotion, starvation bound, budget, what one transaction may carry."""

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.fanout.budget import HORIZON_S
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.log import Output, Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from tests.simulation.lanes import Sent, read_region

MODEL, REGION, DIM = "ctr", "east", 4
STEP_S = 0.02


class Link:
    """One shard and a region with little bandwidth; time passes in steps."""

    def __init__(self, bandwidth: float | None, *, max_age_s: float = 1.0, share: float = 0.25) -> None:
        self.now_s = 1_000.0
        self.broker = MemoryBroker(lambda: self.now_s)
        cluster = MemoryCluster(self.broker)
        model = ModelDeclaration(MODEL, shards=1, tables=(TableDeclaration("t", DIM, fraction_bits=0),))
        declare(cluster, Declarations((RegionDeclaration(REGION),), (model,)), lambda _: cluster)
        catalogue = Catalogue(cluster)
        self.catalogue_end = catalogue.refresh()
        self.incarnation = catalogue.model(MODEL).incarnation or 0
        chosen = FanoutSettings(bandwidth_bytes_per_s=bandwidth, bulk_max_age_s=max_age_s, bulk_share=share)
        self.fanout = RegionFanout(cluster, cluster, REGION, settings=chosen, clock=lambda: self.now_s)
        self._writer = cluster.transactional_writer("test")
        self.step()

    def publish(self, keys: list[int], value: int, *, created: bool = False) -> None:
        columns = np.array(keys, np.uint64), np.full((len(keys), DIM), value, np.int32), np.full(len(keys), created)
        block = DeltaBlock(
            self.incarnation, "t", 0, *columns, catalogue=self.catalogue_end, published_us=int(self.now_s * 1e6)
        )
        self._writer.transact([Output(Partition(topics.deltas(MODEL), 0), encode(block))])

    def step(self, seconds: float = STEP_S) -> None:
        for _ in range(round(seconds / STEP_S)):
            self.now_s += STEP_S
            self.fanout.step(self.now_s)

    def sent(self) -> list[Sent]:
        return read_region(self.broker, MODEL, REGION, 1).shards[0]

    def blocks(self, key: int) -> list[tuple[Lane, LaneBlock]]:
        return [(entry.lane, entry.block) for entry in self.sent() if key in entry.block.keys]

    @property
    def waiting(self) -> int:
        return sum(shard.pending.rows for group in self.fanout.groups.values() for shard in group._shards.values())


def test_without_a_budget_idle_bulk_rides_the_next_transaction() -> None:
    link = Link(None)
    link.publish(list(range(100)), 1)
    link.step()
    link.publish(list(range(100)), 1)
    link.step()
    assert link.waiting == 0
    assert sum(len(entry.block.keys) for entry in link.sent()) == 200


def test_an_urgent_row_overtakes_a_long_backlog() -> None:
    link = Link(2_000.0)
    link.publish(list(range(1_000, 3_000)), 5)
    link.step(1.0)
    assert link.waiting > 1_500
    link.publish([7], 1_000)
    link.step()
    assert [lane for lane, _ in link.blocks(7)] == [Lane.EXPRESS]


def test_a_created_row_is_urgent() -> None:
    link = Link(2_000.0)
    link.publish(list(range(1_000, 2_000)), 5)
    link.step(0.5)
    link.publish([7], 5, created=True)
    link.step()
    assert [lane for lane, _ in link.blocks(7)] == [Lane.EXPRESS]


def test_a_row_is_lifted_to_express_by_what_it_has_accumulated() -> None:
    link = Link(300.0, max_age_s=0.3)
    link.publish([7, *range(1_000, 3_000)], 50)
    crowd = list(range(3_000, 3_200))
    for _ in range(20):
        link.publish([7, *crowd], 50)  # each alike, so none is urgent by itself
        link.publish([7], 50)  # but this one comes twice as often
        link.step(0.1)
    assert Lane.EXPRESS in [lane for lane, _ in link.blocks(7)]
    assert not any(Lane.EXPRESS in [lane for lane, _ in link.blocks(key)] for key in crowd)


def test_starvation_bound_the_smallest_row_goes_though_larger_ones_come_all_the_time() -> None:
    rate, share = 20_000.0, 0.25
    link = Link(rate, max_age_s=0.5, share=share)
    link.publish([7], 1)
    link.publish(list(range(1_000, 1_500)), 2)
    began = link.now_s
    while not link.blocks(7):
        link.publish(list(range(10_000, 10_200)), 100)  # 200 rows * 12 bytes every 20 ms: six times the budget
        link.step()
        assert link.now_s - began < 5.0
    # Overdue after 0.5 s; then 501 rows of 12 bytes that are as old go at a quarter of the rate, in parts with heads.
    assert link.now_s - began < 0.5 + 3 * 501 * (8 + DIM) / (share * rate) + 0.5


@pytest.mark.parametrize("rate", [3_000.0, 50_000.0])
def test_no_transaction_carries_more_bulk_than_a_tenth_of_a_second_of_budget(rate: float) -> None:
    link = Link(rate)
    link.publish(list(range(3_000)), 1_000)
    link.step(2.0)
    bulk = [entry.block for entry in link.sent() if entry.lane is Lane.BULK]
    assert bulk
    by_transaction: dict[int, int] = {}
    for block in bulk:  # one transaction plans all its records at the same `upto` and moment: seqs tell them apart here
        by_transaction[block.seq] = len(encode(block))
    a_row = len(encode(bulk[0])) - len(encode(LaneBlock(1, 1, 0, 1, 0, 0, 0, 0, bulk[0].settled, 0)))
    assert max(by_transaction.values()) <= max(rate * HORIZON_S, 2 * a_row)


def test_a_transaction_full_of_express_carries_no_bulk() -> None:
    link = Link(20_000.0)
    link.step(1.0)  # 2,000 bytes of bulk may go at once
    link.publish(list(range(1_000, 4_000)), 5)
    link.publish(list(range(100)), 1_000_000)  # 2,400 bytes of express
    link.step()
    assert {entry.lane for entry in link.sent()} == {Lane.EXPRESS}
    link.step(1.0)
    assert {entry.lane for entry in link.sent()} == set(Lane), "it goes on"


def test_over_time_the_budget_is_kept_and_used() -> None:
    rate = 10_000.0
    link = Link(rate)
    link.publish(list(range(6_000)), 1_000)
    link.step(0.2)
    before, began = sum(len(encode(entry.block)) for entry in link.sent()), link.now_s
    link.step(4.0)
    sent = sum(len(encode(entry.block)) for entry in link.sent()) - before
    assert 0.6 * rate < sent / (link.now_s - began) < 1.3 * rate
