"""The broker is away for a while, under load (CASES 9): the fan-out goes on by itself, and the rows are exact."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.codec import Codec
from ekko.schemas.errors import EkkoError
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from ekko.streams.publisher import Publisher
from tests.background import in_background
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, Sums, add_rows, read_lanes, settled_epochs, sums_of
from tests.waiting import wait_for

MODEL = "ctr"
AWAY_S, RESUMED_S = 20.0, 30.0


@contextmanager
def training(bootstrap: str) -> Iterator[None]:
    """A trainer that publishes all the while; what the broker does not take it is told, and goes on."""
    dice = np.random.default_rng(3)

    def train(stop: threading.Event) -> None:
        with Publisher(MODEL, bootstrap=bootstrap, trainer="t") as publisher:
            while not stop.wait(0.01):
                with suppress(EkkoError):
                    keys = dice.integers(0, 2_000, 200).astype(np.uint64)
                    publisher.publish("embedding", keys, dice.normal(size=(200, 4)), timeout_s=0.5)

    with in_background(train):
        yield


def published(cluster: KafkaCluster) -> Sums:
    """What the raw source log adds up to."""
    codec, sums = Codec(), Sums()
    for record in read_all(cluster, topics.deltas(MODEL)):
        block = codec.decode(record.value)
        if isinstance(block, DeltaBlock):
            add_rows(sums, block.table, block.keys, block.deltas)
    return sums


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_the_broker_is_stopped_for_twenty_seconds_under_load(tmp_path: Path, start_fanout: Start) -> None:
    with Broker(tmp_path / "broker") as own:
        with closing(KafkaCluster(own.bootstrap)) as before:
            source = Source(before, MODEL)
        fanout = start_fanout(MODEL, "--bootstrap", own.bootstrap, "--region", MODEL)
        with training(own.bootstrap):
            with closing(KafkaCluster(own.bootstrap)) as cluster:
                wait_for(lambda: any(read_lanes(cluster, MODEL, MODEL).values()))
            time.sleep(2.0)
            own.stop()
            time.sleep(AWAY_S)
            own.start()
            with closing(KafkaCluster(own.bootstrap)) as cluster:
                sent = sum(len(blocks) for blocks in read_lanes(cluster, MODEL, MODEL).values())
                assert sent, "something had been sent before"
                wait_for(lambda: sum(map(len, read_lanes(cluster, MODEL, MODEL).values())) > sent + 20, RESUMED_S)
            time.sleep(2.0)
        with closing(KafkaCluster(own.bootstrap)) as cluster:
            source.cluster = cluster
            source.barrier()
            wait_for(lambda: settled_epochs(read_lanes(cluster, MODEL, MODEL)) == [1, 1], RESUMED_S)
            sums, expected = sums_of(read_lanes(cluster, MODEL, MODEL)), published(cluster)
        assert fanout.poll() is None, "nobody had to restart it"
        assert sums.keys() == expected.keys()
        assert all(np.array_equal(row, expected[at]) for at, row in sums.items())
