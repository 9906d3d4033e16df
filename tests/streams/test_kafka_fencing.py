"""How long it takes to fence a writer: a rollback begins with that, and so does every takeover."""

import time
from contextlib import closing

import pytest
from confluent_kafka import KafkaException

from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec, read_all

AT_ONCE_S = 0.2
"""It takes some 0.05 s. librdkafka by itself asks only every 0.5 s whether the older writer's transaction has ended."""


def test_a_writer_in_mid_transaction_is_fenced_at_once(kafka: KafkaCluster, topic_prefix: str) -> None:
    kafka.create_topics([TopicSpec(topic_prefix, 1)])
    place, took_s = Partition(topic_prefix, 0), [AT_ONCE_S]
    while min(took_s) >= AT_ONCE_S and len(took_s) < 20:  # a busy machine makes some slow, the half second all of them
        older = kafka.transactional_writer(topic_prefix)
        older.transact([Output(place, b"committed")])
        older._producer.begin_transaction()
        older._producer.produce(topic_prefix, b"never committed", partition=0)
        older._producer.flush(120)
        start = time.monotonic()
        with closing(kafka.transactional_writer(topic_prefix)) as newer:
            took_s.append(time.monotonic() - start)
            newer.transact([Output(place, b"committed, too")])
            with pytest.raises(KafkaException, match="fenced"):
                older._producer.commit_transaction(60.0)
        older.close()
    assert min(took_s) < AT_ONCE_S, took_s
    kafka.transactional_writer(topic_prefix).close()  # waits until markers are written
    values = [record.value for record in read_all(kafka, topic_prefix)]
    assert values == [b"committed", b"committed, too"] * (len(took_s) - 1)
