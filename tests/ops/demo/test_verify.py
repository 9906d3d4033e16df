"""The proof finds what is wrong: rows that differ now or earlier, what was never acknowledged, what was refused."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from ekko.ops.demo.plan import TABLE, TRAINER, DemoPlan
from ekko.ops.demo.source_sums import Published
from ekko.ops.demo.verify import verify
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import GapError, NotReady
from ekko.schemas.hashing import checksum, shard_of
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.serving.served import Checksum, Health, Lookup
from ekko.storage.serving.server import build_app
from ekko.storage.serving.server_thread import ServerThread
from ekko.streams.log import Output, Partition, TopicSpec
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster

INCARNATION = 4
PLAN = DemoPlan(folder=Path("unused"), bootstrap="unused", model="m", stores={}, monitor_port=1, rate=1.0, seconds=1.0)
MODEL = replace(PLAN.declaration(), incarnation=INCARNATION)

Rows = dict[int, int]


class Log(MemoryCluster):
    """A source log; whoever reads it finds that a manager has just written the next barrier."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker(lambda: 0.0))
        self.create_topics([TopicSpec(topics.deltas("m"), 4)])
        self.create_topics([TopicSpec(topics.rejected("m", region), 4) for region in ("east", "west")])
        self.epoch = 0
        self.managed = True
        self.withdrawn: tuple[EpochRange, ...] = ()

    def publish(self, rows: Rows, *, incarnation: int = INCARNATION) -> None:
        for key, value in rows.items():
            shard = int(shard_of(np.uint64([key]), 4)[0])
            block = DeltaBlock(
                incarnation, TABLE, shard, np.uint64([key]), np.full((1, 16), value, np.int32), trainer=TRAINER
            )
            self._write({shard: encode(block)})

    def barrier(self) -> None:
        self.epoch += 1
        value = encode(Barrier(INCARNATION, self.epoch, 0, 0, withdrawn=self.withdrawn))
        self._write(dict.fromkeys(range(4), value))

    def reader(self, *, idle_ms: int = 100):
        if self.managed:
            self.barrier()
        return super().reader(idle_ms=idle_ms)

    def _write(self, records: dict[int, bytes]) -> None:
        writer = self.writer()
        for shard, value in records.items():
            writer.send(Output(Partition(topics.deltas("m"), shard), value))
        writer.flush(60.0)


class Replica:
    """A region's store that holds what a test says: rows now, and rows as of states."""

    def __init__(self, rows: Rows, earlier: dict[int, Rows], complete: int) -> None:
        self.rows, self.earlier = rows, earlier
        self.state = ReplicaState("m", INCARNATION, 5, {shard: ShardPosition(complete=complete) for shard in range(4)})

    def lookup(self, _model, _table, keys, as_of=None, _generation=None) -> Lookup:
        held = self.earlier.get(as_of, self.rows)
        values = np.array([held.get(key, 0) for key in keys.tolist()], np.int32).reshape(-1, 1)
        return Lookup(np.repeat(values, 16, axis=1), values[:, 0] != 0, self.state)

    def checksum(self, _model, _table, as_of=None) -> Checksum:
        held = self.earlier.get(as_of, self.rows)
        keys, values = np.array(list(held), np.uint64), np.array(list(held.values()), np.int32)
        return Checksum(checksum(TABLE, keys, np.repeat(values.reshape(-1, 1), 16, axis=1)), len(held), self.state)

    def model(self, _name):
        return MODEL

    def members(self):
        return []

    def looked_up(self, _model, _keys, _seconds) -> None:
        pass

    def health(self) -> Health:
        return Health(True, True)


@pytest.fixture
def log() -> Log:
    """Four epochs; key 1 changes in the first and the last."""
    log = Log()
    log.publish({1: 10, 2: 20})
    log.barrier()
    log.publish({3: 30})
    log.barrier()
    log.barrier()
    log.publish({1: 5})
    return log


NOW = {1: 15, 2: 20, 3: 30}
AT_2 = {1: 10, 2: 20, 3: 30}
"""As of state 2, which is the middle one of 1, 2 and 3."""
ACKNOWLEDGED = Published(4, 4, 16 * 65)


@pytest.fixture
def check(log: Log) -> Iterator:
    with ExitStack() as stack:

        def run(east: Replica, west: Replica, acknowledged: Published | None = ACKNOWLEDGED, timeout_s: float = 60.0):
            stores = {}
            for region, replica in (("east", east), ("west", west)):
                server = ServerThread("127.0.0.1", 0)
                server.start(build_app(replica, replica, CollectorRegistry(), region))
                stack.callback(server.stop)
                stores[region] = server.address
            return verify(log, PLAN.model_copy(update={"stores": stores}), MODEL, acknowledged, timeout_s)

        yield run


def replica(now: Rows = NOW, at_2: Rows = AT_2, complete: int = 4) -> Replica:
    return Replica(dict(now), {2: dict(at_2)}, complete)


def test_equal_regions_are_identical(check):
    found = check(replica(), replica())
    assert found.problems == []
    assert found.bit_identical
    assert (found.last_state, found.middle_state, found.keys) == (4, 2, 3)
    assert found.published == ACKNOWLEDGED
    assert found.rejected == {"east": 0, "west": 0}


@pytest.mark.parametrize(
    ("wrong", "found_by"),
    [
        (replica(now={**NOW, 1: 14}), "now"),
        (replica(now={1: 15, 2: 20}), "now"),
        (replica(now={**NOW, 9: 1}), "now"),
        (replica(at_2={**AT_2, 1: 15}), "as of state 2"),
    ],
    ids=["one step off", "a key lost", "a key too many", "wrong in the past"],
)
def test_any_difference_in_one_region_is_told(check, wrong: Replica, found_by: str):
    found = check(replica(), wrong)
    assert not found.bit_identical
    assert all(problem.startswith("west") for problem in found.problems)
    assert any(found_by in problem for problem in found.problems)


def test_both_regions_wrong_in_the_same_way_are_found_out(check):
    wrong = {**NOW, 2: 21}
    assert not check(replica(now=wrong), replica(now=wrong)).bit_identical


def test_acknowledged_totals_must_be_those_of_the_log(check):
    assert "acknowledged" in check(replica(), replica(), Published(4, 4, 16 * 65 + 1)).problems[0]


def test_totals_lost_with_a_killed_trainer_are_not_compared(check):
    assert check(replica(), replica(), None).bit_identical


def test_a_record_that_is_refused_here_must_be_rejected_there(check, log: Log):
    log.publish({7: 1}, incarnation=INCARNATION - 1)
    found = check(replica(), replica(), None)
    assert [problem for problem in found.problems if "0 rejected, expected" in problem]


def test_withdrawn_states_are_not_read_back(check, log: Log):
    log.withdrawn = (EpochRange(1, 3),)
    assert check(replica(), replica()).middle_state is None


def test_a_region_that_stays_behind_is_named(check):
    with pytest.raises(NotReady, match=r"west is not complete at model state 4 \(complete: 3\)"):
        check(replica(), replica(complete=3), timeout_s=2.0)


def test_without_a_barrier_after_the_last_delta_nothing_is_claimed(check, log: Log):
    log.managed = False
    with pytest.raises(NotReady, match="no barrier"):
        check(replica(), replica(), timeout_s=0.3)


def test_a_trimmed_source_cannot_be_summed(check, log: Log, monkeypatch: pytest.MonkeyPatch):
    bounds = log.bounds
    monkeypatch.setattr(log, "bounds", lambda parts: {p: b._replace(low=1) for p, b in bounds(parts).items()})
    with pytest.raises(GapError, match="no longer begins"):
        check(replica(), replica())
