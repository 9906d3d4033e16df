"""What tests of regions that come, go and come back share: a trainer that goes on, and who knows of a region."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import numpy as np

from ekko.schemas.errors import RolledBack
from ekko.streams.catalogue import Catalogue
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.background import in_background


@contextmanager
def training(bootstrap: str, model: str) -> Iterator[None]:
    """A trainer of table `embedding` (4 values a row) that publishes all the while, whatever becomes of regions."""
    rng = np.random.default_rng(3)

    def train(stop: threading.Event) -> None:
        with Publisher(model, bootstrap=bootstrap, trainer="t", on_rollback=lambda _: None) as publisher:
            while not stop.wait(0.01):
                with suppress(RolledBack):
                    publisher.publish("embedding", rng.integers(0, 2_000, 200), rng.normal(size=(200, 4)))

    with in_background(train):
        yield


def has_region(cluster: KafkaCluster, region: str) -> bool:
    """Whether the cluster's catalogue, or its copy of one, knows the region."""
    with closing(Catalogue(cluster)) as catalogue:
        catalogue.refresh()
        return region in catalogue.regions
