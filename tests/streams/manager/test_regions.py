"""Regions that are down are waited for together, not one after the other."""

import time

from ekko.schemas.codec import Codec
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.errors import ConnectionFailed
from ekko.streams.log import Cluster
from ekko.streams.manager.regions import Regions


def down(region: RegionDeclaration) -> Cluster:
    raise ConnectionFailed(f"region {region.name} does not answer")


def test_all_regions_are_waited_for_no_longer_than_the_time_out() -> None:
    regions = Regions(down, Codec())
    names = [f"r{number}" for number in range(10, 60)]
    regions.follow({name: RegionDeclaration(name, incarnation=1) for name in names})
    started = time.monotonic()
    assert regions.wait(0.3) == names
    assert 0.3 <= time.monotonic() - started < 7.5, "one after the other, they take 15 s"
    regions.close()
