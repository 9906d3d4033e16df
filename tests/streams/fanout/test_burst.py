"""A burst is held back, not dropped (CASES 43)."""

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from ekko.streams.publisher import Publisher
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, read_lanes, settled_epochs, sums_of
from tests.streams.visible import await_visible
from tests.waiting import wait_for

BURST, QUEUE, KEYS = 40_000, 100, 500
STEP = 2.0**-24
"""One step of the table: a delta of it is not rounded."""


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_forty_thousand_records_through_a_queue_of_a_hundred(
    broker: Broker, kafka: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    source = Source(kafka, topic_prefix)
    fanout = start_fanout(topic_prefix)
    ones = np.full((1, source.dim), STEP)
    with Publisher(topic_prefix, bootstrap=broker.bootstrap, trainer="t") as first:
        first.publish("embedding", [0], ones)
    await_visible(kafka, topics.deltas(topic_prefix))
    (record,) = read_all(kafka, topics.deltas(topic_prefix))
    queue_bytes = QUEUE * len(record.value or b"")
    with Publisher(topic_prefix, bootstrap=broker.bootstrap, trainer="t", queue_bytes=queue_bytes) as publisher:
        for number in range(1, BURST):
            publisher.publish("embedding", [number % KEYS], ones, timeout_s=60.0)
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) == [1, 1])
    assert fanout.poll() is None
    sums = sums_of(read_lanes(kafka, topic_prefix, topic_prefix))
    assert sums.keys() == {("embedding", key) for key in range(KEYS)}
    assert all((row == BURST // KEYS).all() for row in sums.values())
