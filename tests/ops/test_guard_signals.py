"""What guards are fed with, from real processes: a publisher, a fan-out and a store that meet what must never be."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import OutOfRange
from ekko.schemas.signals import OUT_OF_RANGE, OVERFLOWED, REFUSED
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, read_all
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    table = TableDeclaration("embedding", 4)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as deployment:
        yield deployment


def told(deployment: Deployment) -> Counter[tuple[str, str]]:
    """Observations by metric and by the kind of process that told."""
    found: Counter[tuple[str, str]] = Counter()
    for record in read_all(deployment.kafka, topics.signals(deployment.model.name)):
        signal = Codec().decode(record.value)
        found[signal.metric, signal.source.partition("/")[0]] += signal.count
    return found


def test_what_is_refused_or_overflows_is_told_to_the_monitor(deployment: Deployment) -> None:
    model = deployment.model.name
    keys, fine = np.arange(100, dtype=np.uint64), np.full((100, 4), 60.0, np.float32)
    bad = fine.copy()
    bad[7] = np.nan
    with Publisher(model, bootstrap=deployment.bootstrap, trainer="t") as publisher:
        publisher.publish("embedding", keys, fine)
        publisher.flush(120)
        deployment.wait_exact("rows that fit")
        with pytest.raises(OutOfRange, match="not finite"):
            publisher.publish("embedding", keys, bad)
        with pytest.raises(OutOfRange, match="beyond the table's range"):
            publisher.publish("embedding", keys, 1e6 * fine)
        assert told(deployment).keys() & {(OVERFLOWED, "store"), (REFUSED, "fanout")} == set()
        publisher.publish("embedding", keys[:30], fine[:30])  # twice 60 is below 128, three times is not
        publisher.publish("embedding", keys[:30], fine[:30])
    writer = deployment.kafka.writer()
    for _ in range(3):
        writer.send(Output(Partition(topics.deltas(model), 0), b"rubbish"))
    assert writer.flush(120) == 0
    expected = {(OUT_OF_RANGE, "trainer"): 200, (OVERFLOWED, "store"): 30, (REFUSED, "fanout"): 3}
    deployment.wait("all is told", lambda: expected.items() <= told(deployment).items())
