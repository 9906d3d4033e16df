"""Public reports of lost or double-applied updates, played at the fan-out (CASES group A)."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import EkkoError, GapError
from ekko.schemas.replicas import FanoutState
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.admission import Admission
from ekko.streams.fanout.intake import Intake
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.fanout.shard import ShardFanout
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, read_all
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Faults
from ekko.streams.memory.log import MemoryCluster
from tests.simulation.checks.seqs import check_seqs_contiguous
from tests.simulation.checks.settled import check_all_settled
from tests.simulation.clock import Clock
from tests.simulation.faults import TRANSACTION, Doom, Killed, SeededFaults, Weather
from tests.simulation.lanes import read_region
from tests.simulation.truth import Truth
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs
from tests.streams.topic_settings import lift_limit, limit_records
from tests.streams.visible import await_visible
from tests.waiting import wait_for

MODEL, REGION, KEY = "ctr", "east", 7


FIRST_OWN = 1_000
"""Record n also adds 1 to the row of key FIRST_OWN + n: a lost and a doubled record do not cancel out."""


class Region:
    """A region whose fan-outs come and go; each record adds [1, 1, 1, 1] to one row, and to one of its own."""

    def __init__(self) -> None:
        self.now_s, self.published, self.epoch = 1_000.0, 0, 0
        self.broker = MemoryBroker(lambda: self.now_s)
        self.cluster = MemoryCluster(self.broker)
        model = ModelDeclaration(MODEL, shards=1, tables=(TableDeclaration("t", 4),))
        declare(self.cluster, Declarations((RegionDeclaration(REGION),), (model,)), lambda _: self.cluster)
        catalogue = Catalogue(self.cluster)
        self.catalogue_end = catalogue.refresh()
        self.incarnation = catalogue.model(MODEL).incarnation or 0
        self.fanouts: dict[str, RegionFanout] = {}
        self._writer = self.cluster.transactional_writer("test")

    def start(self, name: str, faults: Faults | None = None) -> None:
        settings = FanoutSettings(retry_s=0.1, announce_s=0.1, lifetime_s=0.5)
        cluster = MemoryCluster(self.broker, faults)
        self.fanouts[name] = RegionFanout(
            cluster, cluster, REGION, settings=settings, clock=lambda: self.now_s, instance=name
        )

    def publish(self, records: int = 1, *, catalogue: int | None = None) -> None:
        for _ in range(records):
            rows = np.array([KEY, FIRST_OWN + self.published], np.uint64), np.ones((2, 4), np.int32)
            named = self.catalogue_end if catalogue is None else catalogue
            block = DeltaBlock(self.incarnation, "t", 0, *rows, catalogue=named, published_us=1)
            self._writer.transact([Output(Partition(topics.deltas(MODEL), 0), encode(block))])
            self.published += 1

    def grow_catalogue(self) -> None:
        """Declare another table."""
        tables = TableDeclaration("t", 4), TableDeclaration("other", 4)
        model = ModelDeclaration(MODEL, shards=1, tables=tables)
        declare(self.cluster, Declarations((), (model,)), lambda _: self.cluster)
        self.catalogue_end = Catalogue(self.cluster).refresh()

    def step(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.now_s += 0.05
            for fanout in list(self.fanouts.values()):
                fanout.step(self.now_s)

    def check(self) -> None:
        """The row is [N, N, N, N], and nothing of it is missing, twice or out of order."""
        self.epoch += 1
        barrier = encode(Barrier(self.incarnation, self.epoch, 0, self.catalogue_end))
        self._writer.transact([Output(Partition(topics.deltas(MODEL), 0), barrier)])
        self.step(60)
        log = read_region(self.broker, MODEL, REGION, 1)
        check_seqs_contiguous(log)
        check_all_settled(Truth(self.broker, MODEL), log)
        assert self.rows() == {KEY: [self.published] * 4} | {
            FIRST_OWN + number: [1] * 4 for number in range(self.published)
        }
        upto = [entry.block.upto for entry in log.shards[0]]
        assert upto == sorted(upto), "offsets only rise"

    def rows(self) -> dict[int, list[int]]:
        """What a store that applied the lanes holds."""
        sums: dict[int, list[int]] = {}
        for entry in read_region(self.broker, MODEL, REGION, 1).shards[0]:
            for key, row in zip(entry.block.keys.tolist(), entry.block.deltas.tolist(), strict=True):
                sums[key] = np.add(sums.get(key, [0] * 4), row).tolist()
        return sums


def test_scaled_from_one_to_two_and_back_five_times() -> None:
    """Cases 1, 6 and 7: the new owner starts exactly where the last transaction left off."""
    region = Region()
    region.start("anna")
    for name in ("bert", "carl", "dora", "emil", "fred"):
        region.publish(3)
        region.step()
        region.start(name)
        region.publish(3)
        region.step(20)
        leaving = region.fanouts.pop(min(region.fanouts))
        region.publish(2)
        leaving.close()
        region.step(20)
    region.check()


@pytest.mark.parametrize("records", [1, 2])
def test_killed_with_exactly_one_record_pending(records: int) -> None:
    """Case 11: the first record after somebody else took over is not dropped."""
    region = Region()
    region.start("anna")
    region.start("bert")
    region.step(20)
    for victim in ("anna", "bert"):
        region.publish(records)
        del region.fanouts[victim]  # kill -9: nothing is closed, nobody is told
        region.step(30)
        region.start(victim)
        region.step(20)
    region.check()


def test_what_raised_once_is_done_again() -> None:
    """Case 12: a failure in the middle of the work loses nothing: the log is read again from what was committed."""
    region, original, failures = Region(), ShardFanout.plan, [0]

    def plan(self: ShardFanout, *given: Any) -> Any:
        if self.intake.position > 5 and failures[0] < 3:
            failures[0] += 1
            raise EkkoError("the handler fails")
        return original(self, *given)

    with patch.object(ShardFanout, "plan", plan):
        region.start("anna")
        for _ in range(12):
            region.publish()
            region.step(4)
    assert failures[0] == 3
    region.check()


def test_a_record_that_waits_holds_back_no_other_and_is_not_passed_over() -> None:
    """Case 4: offset 5 is decided after 6 to 9 were sent; after a kill between, it is applied once, they not again."""
    region = Region()
    region.start("anna")
    region.step(4)
    region.publish(5)
    region.step(4)
    region.publish(catalogue=region.catalogue_end + 1)  # names what the catalogue does not hold yet
    region.publish(4)
    region.step(20)
    assert region.rows()[KEY] == [9] * 4, "the others do not wait for it"
    del region.fanouts["anna"]  # kill -9
    region.start("anna")
    region.step(20)
    assert region.rows()[KEY] == [9] * 4, "what was sent is not sent again"
    region.grow_catalogue()
    region.check()  # its barrier says that the catalogue has grown


@pytest.mark.parametrize("moment", TRANSACTION)
def test_killed_between_producing_and_committing(moment: str) -> None:
    """Case 8: whichever moment of its transaction a fan-out dies in, each row is N."""
    region, doom, clock = Region(), Doom(), Clock()
    faults = SeededFaults("east", Weather(), clock, random.Random(1), doom)
    region.start("anna", faults)
    region.publish(3)
    region.step(20)
    doom.awaited = moment
    region.publish(4)
    with pytest.raises(Killed, match=moment):
        region.step(20)
    doom.dead = True
    del region.fanouts["anna"]
    region.publish(2)
    region.start("anna")
    region.step(60)
    region.check()


def test_a_record_that_comes_out_of_order_is_refused() -> None:
    """Case 7: what was fetched under an old assignment and comes again, or late, is not applied."""
    region = Region()
    region.publish(3)
    records = read_all(region.cluster, topics.deltas(MODEL))
    catalogue = SharedCatalogue(region.cluster)
    catalogue.refresh()
    intake = Intake(Admission(catalogue.models[MODEL], 0, catalogue))
    for record in records:
        intake.read(record)
    arrived = {at: len(parts) for at, parts in intake.arrivals.items()}
    for again in (records[-1], records[0]):
        with pytest.raises(GapError, match=rf"offset {again.offset} .* {records[-1].offset} was read"):
            intake.read(again)
    assert intake.position == records[-1].offset + 1
    assert {at: len(parts) for at, parts in intake.arrivals.items()} == arrived


def _place(kafka: KafkaCluster, name: str) -> Callable[[], int]:
    def place() -> int:
        records = read_all(kafka, topics.fanout(name, name))
        states = [Codec().decode(record.value) for record in records]
        return sum(state.upto for state in states[-1:] if isinstance(state, FanoutState))

    return place


def test_a_lane_that_refuses_its_records_moves_nothing_on(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, start_fanout: Start, tmp_path: Path
) -> None:
    """Case 13: the source position is committed with the lane records or not at all."""
    name, lanes = topic_prefix, [topics.lane(topic_prefix, topic_prefix, lane) for lane in Lane]
    source, place = Source(kafka, name, shards=1), _place(kafka, name)
    start_fanout(name)
    source.publish(np.arange(10, dtype=np.uint64))
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [1])
    before = place()
    for lane in lanes:
        limit_records(broker.bootstrap, lane, 100)  # a transaction marker fits, a row does not
    source.publish(np.arange(10, dtype=np.uint64))
    refused = f"fan-out of {name}, group 0, to {name}: "
    wait_for(lambda: refused in (tmp_path / "fanout-0.log").read_text(), what="it has tried")
    await_visible(kafka, topics.fanout(name, name))
    assert place() == before
    assert settled_epochs(read_lanes(kafka, name, name)) == [1]
    for lane in lanes:
        lift_limit(broker.bootstrap, lane)
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [2])
    check_exact(kafka, source, name)
