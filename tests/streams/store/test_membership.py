"""What a replica undid is told for as long as it has not been told to everybody: also by its next life."""

import time
from collections.abc import Iterator

import pytest

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import EpochRange
from ekko.schemas.replicas import Member, Undone
from ekko.streams.log import Cluster, TopicSpec, read_all
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from ekko.streams.replica.membership import Membership, standing, unready

FIRST = Undone("ctr", 3, EpochRange(2, 4), 77, 1_000)
AGAIN = FIRST._replace(rows=5, at_us=3_000)
"""The same void, undone once more by a start whose rows did not hold it yet."""
SECOND = Undone("ctr", 3, EpochRange(6, 7), 1, 4_000)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = MemoryCluster(MemoryBroker(time.monotonic, decide=lambda: True))
    cluster.create_topics([TopicSpec(topics.members("east"), 1)])
    yield cluster
    cluster.close()


def life(cluster: Cluster, started_us: int, *undone: Undone) -> Membership:
    """A replica's process that has announced itself."""
    myself = unready("east", "0", "localhost:1", started_us)
    membership = Membership(cluster, myself)
    membership.listen()
    membership.announce(standing(myself, undone=undone))
    return membership


def told(cluster: Cluster) -> tuple[Undone, ...]:
    """What the last announcement says: all that a manager learns which was down."""
    member = Codec().decode(read_all(cluster, topics.members("east"))[-1].value)
    assert isinstance(member, Member)
    return member.undone


def now_us() -> int:
    return time.time_ns() // 1_000


def test_an_earlier_lifes_voids_are_told_on_each_once(cluster: Cluster) -> None:
    life(cluster, now_us(), FIRST)
    time.sleep(0.002)
    life(cluster, now_us())
    assert told(cluster) == (FIRST,)
    time.sleep(0.002)
    third = life(cluster, now_us(), AGAIN, SECOND)
    assert told(cluster) == (FIRST, SECOND)
    assert third.rival is None


def test_so_they_are_after_a_proper_end(cluster: Cluster) -> None:
    life(cluster, now_us(), FIRST).leave()
    time.sleep(0.002)
    life(cluster, now_us(), SECOND)
    assert told(cluster) == (FIRST, SECOND)
