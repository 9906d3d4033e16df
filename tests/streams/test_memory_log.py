"""The twin's own faults: what a real broker does too, but not on demand."""

import pytest

from ekko.schemas.errors import CommitUncertain, ConnectionFailed, Fenced, PublishUncertain, TransactionAborted
from ekko.streams.log import Output, Partition, TopicSpec, read_all, read_range
from ekko.streams.memory.broker import TRANSACTION_TIMEOUT_S, MemoryBroker, PartitionLog
from ekko.streams.memory.faults import Fate, Faults
from ekko.streams.memory.log import DELIVERY_TIMEOUT_S, MemoryCluster

HOME = Partition("t", 0)


class Scripted(Faults):
    """Faults set by hand."""

    def __init__(self) -> None:
        self.up = True
        self.fate = Fate.DONE
        self.killed_at = ""
        self.seen: int | None = None

    def reachable(self) -> bool:
        return self.up

    def interrupt(self, moment: str) -> None:
        if moment == self.killed_at:
            raise KeyboardInterrupt

    def transaction(self) -> Fate:
        return self.fate

    def delivery(self) -> Fate:
        return self.fate

    def visible_end(self, log: PartitionLog, position: int, waited_s: float) -> int:
        del position
        return log.stable if self.seen is None or waited_s >= 1.0 else self.seen


class World:
    def __init__(self, *, commits: bool = False) -> None:
        self.now = 0.0
        self.broker = MemoryBroker(lambda: self.now, lambda: commits)
        self.broker.create([TopicSpec("t", 1)])
        self.faults = Scripted()
        self.cluster = MemoryCluster(self.broker, self.faults)
        self.healthy = MemoryCluster(self.broker)

    def values(self) -> list[bytes | None]:
        return [record.value for record in read_all(self.healthy, "t")]


def outputs(value: bytes) -> list[Output]:
    return [Output(HOME, value)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_hanging_commit_holds_readers_back_until_a_newer_writer_ends_it(commits: bool) -> None:
    world = World(commits=commits)
    writer = world.cluster.transactional_writer("id")
    world.faults.fate = Fate.HANGING
    with pytest.raises(CommitUncertain):
        writer.transact(outputs(b"x"))
    world.healthy.transactional_writer("other").transact(outputs(b"later"))
    assert world.values() == []
    world.healthy.transactional_writer("id")
    assert world.values() == ([b"x", b"later"] if commits else [b"later"])


def test_a_hanging_transaction_ends_by_its_time_out_and_its_writer_is_fenced() -> None:
    world = World()
    writer = world.cluster.transactional_writer("id")
    world.faults.killed_at = "in transaction"
    with pytest.raises(KeyboardInterrupt):
        writer.transact(outputs(b"x"))
    world.faults.killed_at = ""
    world.healthy.transactional_writer("other").transact(outputs(b"later"))
    world.now = TRANSACTION_TIMEOUT_S - 0.1
    assert world.values() == []
    world.now = TRANSACTION_TIMEOUT_S
    assert world.values() == [b"later"]
    with pytest.raises(Fenced):
        writer.transact(outputs(b"zombie"))


def test_a_lost_reply_is_committed_but_not_known_to_be() -> None:
    world = World()
    writer = world.cluster.transactional_writer("id")
    world.faults.fate = Fate.REPLY_LOST
    with pytest.raises(CommitUncertain):
        writer.transact(outputs(b"x"))
    with pytest.raises(CommitUncertain):
        writer.transact(outputs(b"never again by the same writer"))
    assert world.values() == [b"x"]


def test_a_refused_transaction_leaves_a_hole_and_the_writer_goes_on() -> None:
    world = World()
    writer = world.cluster.transactional_writer("id")
    world.faults.fate = Fate.REFUSED
    with pytest.raises(TransactionAborted):
        writer.transact(outputs(b"x"))
    world.faults.fate = Fate.DONE
    assert writer.transact(outputs(b"y")) == [2]
    assert world.values() == [b"y"]


def test_a_broker_away_is_felt_and_nothing_is_lost() -> None:
    world = World()
    writer, reader = world.cluster.writer(), world.cluster.reader()
    reader.assign({HOME: 0})
    transactional = world.cluster.transactional_writer("id")
    world.faults.up = False
    writer.send(Output(HOME, b"x"))
    assert writer.flush(1.0) == 1
    assert reader.poll(0.1) == []
    with pytest.raises(TransactionAborted):
        transactional.transact(outputs(b"y"))
    with pytest.raises(ConnectionFailed):
        world.cluster.bounds([HOME])
    with pytest.raises(ConnectionFailed):
        world.cluster.transactional_writer("id")
    world.faults.up = True
    assert writer.flush(1.0) == 0
    assert [record.value for record in reader.poll(0.1)] == [b"x"]


@pytest.mark.parametrize("fate", [Fate.REPLY_LOST, Fate.REFUSED])
def test_a_delivery_of_unknown_fate_says_so(fate: Fate) -> None:
    world = World()
    world.faults.fate = fate
    errors: list[Exception | None] = []
    writer = world.cluster.writer()
    writer.send(Output(HOME, b"x"), lambda _offset, error: errors.append(error))
    writer.poll()
    assert isinstance(errors[0], PublishUncertain)
    assert world.values() == ([b"x"] if fate is Fate.REPLY_LOST else [])


def test_a_delivery_gives_up_after_its_time_out() -> None:
    world = World()
    world.faults.up = False
    errors: list[Exception | None] = []
    writer = world.cluster.writer()
    writer.send(Output(HOME, b"x"), lambda _offset, error: errors.append(error))
    world.now = DELIVERY_TIMEOUT_S
    assert writer.flush(1.0) == 0
    assert isinstance(errors[0], PublishUncertain)
    assert world.values() == []


def test_a_reader_may_lag_and_waiting_helps() -> None:
    world = World()
    writer = world.cluster.writer()
    for value in (b"a", b"b", b"c"):
        writer.send(Output(HOME, value))
    writer.flush(1.0)
    world.faults.seen = 1
    reader = world.cluster.reader()
    reader.assign({HOME: 0})
    assert [record.value for record in reader.poll(0.6)] == [b"a"]
    assert reader.poll(0.6) == []
    assert reader.poll(0.6) == []
    assert [record.value for record in reader.poll(0.6)] == [b"b", b"c"]


def test_a_range_that_is_not_read_to_its_end_in_time_is_a_connection_that_failed() -> None:
    """So that whoever meets with it tries again, as with every other outage."""
    world = World()
    world.healthy.transactional_writer("w").transact(outputs(b"x"))
    world.faults.interrupt = lambda moment: setattr(world.faults, "up", moment != "poll")  # type: ignore[method-assign]
    with pytest.raises(ConnectionFailed, match=r"t\[0\] \(at 0 of \d+\).* within 0\.05 s"):
        read_range(world.cluster, {HOME: 0}, timeout_s=0.05)
