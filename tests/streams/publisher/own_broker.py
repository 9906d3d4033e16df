"""A model whose rows count how often each of 100 keys was published, on a broker that a test may kill."""

from contextlib import closing

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from tests.streams.visible import await_visible

DIM = 16
STEP = 2.0**-24
MODEL = ModelDeclaration("ctr", shards=4, tables=(TableDeclaration("users", dim=DIM),))


def deltas_of(count: int) -> np.ndarray:
    return np.full((count, DIM), STEP)


def counts_in(bootstrap: str) -> np.ndarray:
    """How often each key 0..99 was counted up, by the raw log."""
    codec, counts = Codec(), np.zeros(100, int)
    with closing(KafkaCluster(bootstrap)) as cluster:
        await_visible(cluster, topics.deltas("ctr"))
        for record in read_all(cluster, topics.deltas("ctr"), timeout_s=60):
            message = codec.decode(record.value)
            assert isinstance(message, DeltaBlock)
            assert (message.deltas == message.deltas[:, :1]).all()
            np.add.at(counts, message.keys.astype(int), message.deltas[:, 0])
    return counts
