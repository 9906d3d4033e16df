"""Regions are listened to side by side, and whoever waits for announcements hears of them at once."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from ekko.schemas import topics
from ekko.schemas.codec import FORMAT_VERSION, Codec, encode
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.errors import ConnectionFailed
from ekko.schemas.replicas import Member
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster, Partition
from ekko.streams.manager.regions import Regions
from tests.streams.manager.conftest import World


def down(region: RegionDeclaration) -> Cluster:
    raise ConnectionFailed(f"region {region.name} does not answer")


def test_all_regions_are_waited_for_no_longer_than_the_time_out() -> None:
    regions = Regions(down, Codec())
    names = [f"r{number}" for number in range(10, 60)]
    regions.follow({name: RegionDeclaration(name, incarnation=1) for name in names})
    started = time.monotonic()
    assert regions.wait(1.0) == names
    assert 1.0 <= time.monotonic() - started < 25, "one after the other, they take 50 s"
    regions.close()


class Announcing:
    """A region on the real broker, what its replicas announce, and who listens."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.region = world, world.declare_region(name)
        self.regions = Regions(lambda _: world.connect(), world.codec)

    def announce(self, replica: str, address: str) -> None:
        self.write(encode(Member(self.region.name, replica, address, True, 0, 0)), replica)

    def write(self, value: bytes | None, replica: str) -> None:
        self._world.write(Partition(topics.members(self.region.name), 0), value, replica.encode())

    def listen(self) -> None:
        self.regions.follow({self.region.name: self.region})
        self.regions.start()
        assert self.regions.wait(120) == []

    def addresses(self) -> dict[str, str]:
        return {member.replica: member.address for member in self.regions.now()[self.region.name].members}


@pytest.fixture
def announcing(kafka: KafkaCluster, topic_prefix: str) -> Iterator[Announcing]:
    found = Announcing(World(lambda: kafka, topic_prefix[:40]), f"{topic_prefix[:40]}-r")
    with closing(found.regions):
        yield found


def test_of_many_announcements_each_replicas_last_one_counts(announcing: Announcing) -> None:
    for number in range(5):
        for replica in ("a", "b", "gone"):
            announcing.announce(replica, f"host:{number}")
    announcing.write(None, "gone")
    announcing.announce("back", "host:7")
    announcing.write(None, "back")
    announcing.announce("back", "host:8")
    announcing.listen()
    assert announcing.addresses() == {"a": "host:4", "b": "host:4", "back": "host:8"}


def test_an_announcement_of_newer_software_hides_nobody(announcing: Announcing) -> None:
    """The thread that listened ended there, and the region was never heard again."""
    announcing.announce("a", "host:1")
    readable = encode(Member(announcing.region.name, "a", "host:2", True, 0, 0))
    announcing.write(readable[:3] + bytes([FORMAT_VERSION + 1]) + readable[4:], "a")
    announcing.listen()
    assert announcing.addresses() == {"a": "host:1"}
    announcing.announce("a", "host:3")
    deadline = time.monotonic() + 120
    while announcing.addresses() != {"a": "host:3"}:
        assert time.monotonic() < deadline
        announcing.regions.await_news(1.0)


def test_who_waits_for_announcements_is_woken_by_one(announcing: Announcing) -> None:
    announcing.announce("a", "host:1")
    announcing.listen()
    announcing.regions.await_news(0.0)
    started = time.monotonic()
    announcing.regions.await_news(0.2)
    assert time.monotonic() - started >= 0.19, "what was taken notice of is no news"
    writing = threading.Timer(0.2, announcing.announce, ("a", "host:2"))
    writing.start()
    announcing.regions.await_news(120.0)
    assert announcing.addresses() == {"a": "host:2"}
    assert time.monotonic() - started < 60
    writing.join()
