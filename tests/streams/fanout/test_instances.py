"""Several instances of a region's fan-out: they share the shard groups and take over from each other."""

import math

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.errors import ConnectionFailed, Fenced
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.fanout.instances import Instances, owner
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.faults import Faults
from ekko.streams.memory.log import MemoryCluster
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs
from tests.waiting import wait_for


class Stage:
    """Instances on an in-memory log with a clock of its own."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.cluster = MemoryCluster(MemoryBroker(lambda: self.now_s))
        declare(self.cluster, Declarations((RegionDeclaration("east"),)), lambda _: self.cluster)

    def start(self, name: str) -> Instances:
        self.now_s += 0.001
        return Instances(self.cluster, "east", name, self.now_s, interval_s=0.5, lifetime_s=2.0)

    def pass_time(self, seconds: float, *instances: Instances) -> None:
        for _ in range(round(seconds / 0.25)):
            self.now_s += 0.25
            for instance in instances:
                instance.step(self.now_s)


def test_all_living_instances_see_each_other_and_the_dead_are_forgotten() -> None:
    stage = Stage()
    anna, bert = stage.start("anna"), stage.start("bert")
    assert anna.living == frozenset(), "nobody works before his own announcement was read back"
    stage.pass_time(1.0, anna, bert)
    assert anna.living == bert.living == {"anna", "bert"}
    stage.pass_time(1.5, anna)
    assert anna.living == {"anna", "bert"}, "not dead yet"
    stage.pass_time(1.5, anna)
    assert anna.living == {"anna"}


class Away(Faults):
    """A broker that can be away, or answers so many requests more."""

    def __init__(self) -> None:
        self.answers: float = math.inf

    def reachable(self) -> bool:
        self.answers -= 1
        return self.answers >= 0


def test_every_time_that_the_others_cannot_be_followed_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stage, away = Stage(), Away()
    stage.cluster = MemoryCluster(stage.cluster.broker, away)
    anna = stage.start("anna")
    for outage in range(1, 4):
        away.answers = 0
        stage.pass_time(1.0, anna)
        away.answers = math.inf
        stage.pass_time(1.0, anna)
        assert anna.living == {"anna"}
        anna._disconnect()  # so that the next outage is noticed
        assert len([record for record in caplog.records if "cannot be followed" in record.message]) == outage


def test_shares_are_followed_though_the_broker_went_away_in_mid_connection() -> None:
    stage, away = Stage(), Away()
    fanout = RegionFanout(
        MemoryCluster(stage.cluster.broker, away), stage.cluster, "east", clock=lambda: stage.now_s, instance="anna"
    )
    away.answers = 1  # where the topic begins is told, and no more
    with pytest.raises(ConnectionFailed):
        fanout._advice.step(stage.now_s, {}, ())
    away.answers = math.inf
    fanout._advice.step(stage.now_s, {}, ())
    assert fanout._advice._reader is not None
    assert fanout._advice._reader.position(Partition(topics.SHARES, 0)) == 0


def test_one_that_leaves_is_gone_at_once() -> None:
    stage = Stage()
    anna, bert = stage.start("anna"), stage.start("bert")
    stage.pass_time(1.0, anna, bert)
    bert.leave(stage.now_s)
    stage.pass_time(0.25, anna)
    assert anna.living == {"anna"}


def test_a_newcomer_does_not_believe_in_those_who_died_long_ago() -> None:
    stage = Stage()
    stage.pass_time(1.0, stage.start("anna"))
    stage.now_s += 3_600
    bert = stage.start("bert")
    stage.pass_time(0.25, bert)
    assert bert.living == {"bert"}


def test_a_second_process_of_the_same_name_ends_the_first() -> None:
    stage = Stage()
    first = stage.start("anna")
    stage.pass_time(1.0, first)
    second = stage.start("anna")
    stage.pass_time(0.5, second)
    with pytest.raises(Fenced, match="anna"):
        stage.pass_time(0.5, first)
    stage.pass_time(5.0, second)
    assert second.living == {"anna"}


def test_when_an_instance_goes_only_its_work_changes_hands() -> None:
    work, all_four = [f"ctr@1.{number}" for number in range(200)], ("a", "b", "c", "d")
    before = {what: owner(all_four, what) for what in work}
    after = {what: owner(("a", "b", "c"), what) for what in work}
    assert all(after[what] == before[what] for what in work if before[what] != "d")
    shares = [list(before.values()).count(name) for name in all_four]
    assert min(shares) > 30, f"work is spread evenly: {shares}"


def test_two_processes_share_the_groups_and_take_over_when_one_is_killed(
    kafka: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    name = topic_prefix
    source = Source(kafka, name, shards=6, groups=6)
    anna, bert = start_fanout(name, "--instance", "anna"), start_fanout(name, "--instance", "bert")
    everything = np.arange(600, dtype=np.uint64)
    source.publish(everything)
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [1] * 6)
    for victim, successor in ((anna, "carl"), (bert, "dora")):
        source.publish(everything)
        victim.kill()
        source.publish(everything)
        source.barrier()
        # Within seconds, but for a busy machine: `lifetime_s` is two.
        wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [source.epoch] * 6, 60)
        start_fanout(name, "--instance", successor)
    source.publish(everything)
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, name, name)) == [source.epoch] * 6)
    check_exact(kafka, source, name)
