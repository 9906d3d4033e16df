"""The publisher when the broker dies or changes its mind: nothing hangs, nothing is silently lost."""

import subprocess
import sys
import threading
import time
from contextlib import closing, suppress

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.errors import CatalogueConflict, PublishUncertain, QueueFull, TransactionAborted
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import read_all
from ekko.streams.publisher import Publisher
from tests.streams.publisher.own_broker import DIM, counts_in, deltas_of
from tests.streams.topic_settings import limit_records
from tests.waiting import PATIENCE_S, wait_for

FORGETFUL = """
import sys
import numpy as np
from ekko.streams.publisher import Publisher

publisher = Publisher("ctr", bootstrap=sys.argv[1], linger_ms=10_000)
publisher.publish("users", np.arange(100), np.full((100, 16), 2.0**-24))
"""


def test_a_broker_killed_twice_under_load_loses_and_repeats_nothing(own_broker: Broker) -> None:
    with closing(Publisher("ctr", bootstrap=own_broker.bootstrap, queue_bytes=4_000_000)) as publisher:
        stop = threading.Event()
        published = [0]

        def train() -> None:
            while not stop.is_set():
                publisher.publish("users", np.arange(100), deltas_of(100), timeout_s=120)
                published[0] += 1

        trainer = threading.Thread(target=train)
        trainer.start()
        for _ in range(2):
            under_way = publisher.acknowledged.blocks + 40
            wait_for(lambda seen=under_way: publisher.acknowledged.blocks > seen)  # type: ignore[misc]
            own_broker.kill()
            time.sleep(0.3)
            own_broker.start()
        under_way = publisher.acknowledged.blocks + 40
        wait_for(lambda: publisher.acknowledged.blocks > under_way)
        stop.set()
        trainer.join(240)
        publisher.flush(120)
        assert publisher.acknowledged.rows == 100 * published[0]
    assert counts_in(own_broker.bootstrap).tolist() == [published[0]] * 100


def test_with_the_broker_away_the_queue_fills_is_told_and_goes_out_later(own_broker: Broker) -> None:
    with Publisher("ctr", bootstrap=own_broker.bootstrap, queue_bytes=100_000) as publisher:
        publisher.publish("users", np.arange(100), deltas_of(100))
        publisher.flush(120)
        own_broker.kill()
        accepted = 1
        try:
            while accepted < 1_000:
                publisher.publish("users", np.arange(100), deltas_of(100), timeout_s=0.5)
                accepted += 1
        except QueueFull as error:
            assert "nothing was enqueued" in error.message  # noqa: PT017 - the count at this moment is what matters
        assert 10 < accepted < 1_000
        with pytest.raises(PublishUncertain, match="still being sent"):
            publisher.flush(0.3)
        own_broker.start()
        publisher.flush(120)
        assert publisher.acknowledged.rows == 100 * accepted
    assert counts_in(own_broker.bootstrap).tolist() == [accepted] * 100


def test_closing_with_the_broker_away_ends_in_time_and_tells(own_broker: Broker) -> None:
    publisher = Publisher("ctr", bootstrap=own_broker.bootstrap)
    publisher.publish("users", np.arange(100), deltas_of(100))
    publisher.flush(120)
    own_broker.kill()
    publisher.publish("users", np.arange(100), deltas_of(100))
    started = time.monotonic()
    with pytest.raises(PublishUncertain, match="the publisher is closed"):
        publisher.close(timeout_s=1.0)
    assert time.monotonic() - started < 25, "30 s by default"
    own_broker.start()
    assert set(counts_in(own_broker.bootstrap).tolist()) <= {1, 2}


def publish_until_delivered(publisher: Publisher, batches: int) -> int:
    """Publish until so many batches are known to be in the log; how many were published."""
    published, delivered, deadline = 0, 0, time.monotonic() + PATIENCE_S
    while delivered < batches:
        assert time.monotonic() < deadline
        published += 1
        with suppress(PublishUncertain):  # a busy broker may be too slow for little patience
            publisher.publish("users", np.arange(100), deltas_of(100))
            publisher.flush(120)
            delivered += 1
    return published


def test_what_is_not_delivered_in_time_is_of_unknown_fate_and_later_batches_go(own_broker: Broker) -> None:
    impatient = KafkaCluster(own_broker.bootstrap, {"delivery.timeout.ms": "1500"})
    with closing(impatient), closing(Publisher("ctr", cluster=impatient)) as publisher:
        published = publish_until_delivered(publisher, 1)
        own_broker.kill()
        publisher.publish("users", np.arange(100), deltas_of(100))
        with pytest.raises(PublishUncertain, match=r"100 row\(s\) in 4 block\(s\)"):
            publisher.flush(120)
        own_broker.start()
        published += 1 + publish_until_delivered(publisher, 3)
        acknowledged = publisher.acknowledged.rows
    counts = counts_in(own_broker.bootstrap)
    assert max(counts) <= published, "nothing was sent twice"
    assert 400 <= acknowledged <= counts.sum() <= 100 * published


def test_a_limit_that_was_lowered_meanwhile_is_told(own_broker: Broker) -> None:
    with closing(Publisher("ctr", bootstrap=own_broker.bootstrap)) as publisher:
        limit_records(own_broker.bootstrap, topics.deltas("ctr"), 2_000)
        rng = np.random.default_rng(0)
        publisher.publish("users", np.arange(1_000), rng.normal(size=(1_000, DIM)))
        with pytest.raises(TransactionAborted, match=r"1000 row\(s\) in 4 block\(s\) .* were not delivered") as error:
            publisher.flush(120)
        assert "max.message.bytes" in error.value.hint
        assert publisher.acknowledged.rows == 0


def test_a_script_that_forgets_to_close_loses_nothing_and_is_told(own_broker: Broker) -> None:
    command = [sys.executable, "-c", FORGETFUL, own_broker.bootstrap]
    trainer = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    assert "was not closed" in trainer.stderr
    assert counts_in(own_broker.bootstrap).tolist() == [1] * 100


def test_partitions_added_while_it_runs_tear_no_row_apart(own_broker: Broker) -> None:
    from confluent_kafka.admin import AdminClient, NewPartitions  # noqa: PLC0415 - the adapter can't do this on purpose

    with closing(Publisher("ctr", bootstrap=own_broker.bootstrap)) as publisher:
        publisher.publish("users", np.arange(100), deltas_of(100))
        admin = AdminClient({"bootstrap.servers": own_broker.bootstrap})
        admin.create_partitions([NewPartitions(topics.deltas("ctr"), 8)])[topics.deltas("ctr")].result(120)
        for _ in range(20):
            publisher.publish("users", np.arange(100), deltas_of(100))
            time.sleep(0.05)
    assert counts_in(own_broker.bootstrap).tolist() == [21] * 100
    with closing(KafkaCluster(own_broker.bootstrap)) as cluster:
        records = read_all(cluster, topics.deltas("ctr"))
        assert {record.partition.number for record in records} == {0, 1, 2, 3}
        with pytest.raises(CatalogueConflict, match=r"has 8 partition\(s\)"):
            Publisher("ctr", cluster=cluster)
