"""A region with a cluster of its own: exact across both, mirrored, and patient with a cluster that is away."""

import time

import numpy as np

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.epochs import Barrier
from ekko.schemas.signals import Signal
from ekko.streams.catalogue import Catalogue
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, read_all
from tests.streams.fanout.conftest import Start
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs
from tests.waiting import wait_for


def send(cluster: KafkaCluster, topic: str, message: object, key: bytes | None = None) -> None:
    writer = cluster.writer()
    writer.send(Output(Partition(topic, 0), encode(message), key))
    assert writer.flush(120) == 0
    writer.close()


def last_value(cluster: KafkaCluster, topic: str) -> object:
    records = read_all(cluster, topic)
    return Codec().decode(records[-1].value) if records else None


def test_exact_over_two_clusters_while_the_regions_one_dies_and_comes_back(
    kafka: KafkaCluster, regional_broker: Broker, regional: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    name = topic_prefix
    source = Source(kafka, name, regional=regional_broker.bootstrap)
    start_fanout(name)
    source.publish(np.arange(300, dtype=np.uint64))
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(regional, name, name)) == [1, 1])
    regional_broker.kill()
    source.publish(np.arange(200, 500, dtype=np.uint64))
    source.barrier()
    time.sleep(6.0)
    regional_broker.start()
    source.publish(np.arange(50, dtype=np.uint64))
    source.barrier()
    wait_for(lambda: settled_epochs(read_lanes(regional, name, name)) == [3, 3])
    check_exact(regional, source, name)


def test_catalogue_and_control_go_down_and_signals_come_up(
    kafka: KafkaCluster, regional_broker: Broker, regional: KafkaCluster, topic_prefix: str, start_fanout: Start
) -> None:
    name = topic_prefix
    source = Source(kafka, name, regional=regional_broker.bootstrap)
    before, after = (Barrier(source.incarnation, epoch, epoch, source.catalogue_end) for epoch in (1, 2))
    send(kafka, topics.control(name), before, b"control")
    start_fanout(name)
    wait_for(lambda: last_value(regional, topics.control(name)) == before)
    send(kafka, topics.control(name), after, b"control")
    wait_for(lambda: last_value(regional, topics.control(name)) == after)
    there = Catalogue(regional)
    there.reach(source.catalogue_end, 120.0)
    assert there.model(name).incarnation == source.incarnation, "the mirror keeps central offsets"
    there.close()
    signal = Signal(name, name, "store/one", "log_loss", 0.5, 10, 17)
    send(regional, topics.signals(name), signal)
    wait_for(lambda: last_value(kafka, topics.signals(name)) == signal)
