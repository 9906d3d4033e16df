"""What the tests of declaring share."""

from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.log import Cluster, Output, Partition

USERS = TableDeclaration("users", dim=16)
ITEMS = TableDeclaration("items", dim=8)


def nowhere(region: RegionDeclaration) -> Cluster:
    raise AssertionError(f"nobody should connect to {region}")


def read(cluster: Cluster) -> Catalogue:
    catalogue = Catalogue(cluster)
    catalogue.refresh()
    return catalogue


def of(model: ModelDeclaration, *regions: str) -> Declarations:
    return Declarations(tuple(RegionDeclaration(region) for region in regions), (model,))


def put(cluster: Cluster, partition: Partition, value: bytes) -> None:
    writer = cluster.writer()
    writer.send(Output(partition, value))
    assert writer.flush(120) == 0
