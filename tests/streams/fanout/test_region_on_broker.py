"""The fan-out of a region on a real broker."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.errors import Fenced
from ekko.streams.catalogue.declaring import delete_model
from ekko.streams.fanout import FanoutSettings, RegionFanout, RejectedTopic
from ekko.streams.kafka import KafkaCluster
from tests.streams.fanout.source import Source, check_exact, read_lanes, settled_epochs
from tests.streams.visible import await_visible
from tests.waiting import PATIENCE_S, wait_for


@contextmanager
def running(cluster: KafkaCluster, region: str, settings: FanoutSettings | None = None) -> Iterator[RegionFanout]:
    chosen = replace(settings or FanoutSettings(), models=frozenset({region}))
    fanout = RegionFanout(cluster, cluster, region, settings=chosen, clock=time.time)
    stop = threading.Event()
    thread = threading.Thread(target=fanout.run, args=(stop,))
    thread.start()
    try:
        yield fanout
    finally:
        stop.set()
        thread.join(120)
        assert not thread.is_alive()


def step_for(fanout: RegionFanout, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        fanout.step(time.time())


def keys_of(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


def test_everything_published_comes_through_the_lanes_once(kafka: KafkaCluster, topic_prefix: str) -> None:
    source = Source(kafka, topic_prefix)
    with running(kafka, topic_prefix):
        for _ in range(20):
            source.publish(np.unique(np.random.default_rng(3).integers(0, 200, 60).astype(np.uint64)))
        source.barrier()
        wait_for(lambda: settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) == [1, 1])
    check_exact(kafka, source, source.name)


def test_a_second_fan_out_takes_over_and_the_first_says_so(kafka: KafkaCluster, topic_prefix: str) -> None:
    source = Source(kafka, topic_prefix)
    starved = FanoutSettings(models=frozenset({topic_prefix}), bandwidth_bytes_per_s=2_000.0, express_percentile=100.0)
    first = RegionFanout(kafka, kafka, topic_prefix, settings=starved, clock=time.time)
    source.publish(np.arange(500, dtype=np.uint64))
    source.barrier()
    deadline = time.monotonic() + PATIENCE_S
    while settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) != [0, 0]:
        first.step(time.time())  # most of the rows still wait when the other one comes
        assert time.monotonic() < deadline
    with running(kafka, topic_prefix):
        wait_for(lambda: settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) == [1, 1])
        source.publish(np.arange(500, 600, dtype=np.uint64))
        with pytest.raises(Fenced):
            step_for(first, PATIENCE_S)
        source.barrier()
        wait_for(lambda: settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) == [2, 2])
    first.close()
    check_exact(kafka, source, source.name)


def test_a_fan_out_outlives_its_last_model(kafka: KafkaCluster, topic_prefix: str) -> None:
    source = Source(kafka, topic_prefix)
    with running(kafka, topic_prefix) as fanout:
        source.publish(keys_of(1, 2, 3))
        wait_for(lambda: bool(fanout.groups))
        delete_model(kafka, topic_prefix, lambda _: kafka)
        wait_for(lambda: not fanout.groups)
        again = Source(kafka, topic_prefix)
        again.publish(keys_of(4, 5))
        again.barrier()
        wait_for(lambda: settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) == [1, 1])
    check_exact(kafka, again, again.name)


def test_bad_records_are_rejected_with_reason_and_bytes_and_stop_nothing(
    kafka: KafkaCluster, topic_prefix: str
) -> None:
    source = Source(kafka, topic_prefix)
    with running(kafka, topic_prefix):
        source.publish(keys_of(1, 2, 3))
        source.send(0, b"\x00\x01\x02\x03")
        source.send(0, None)
        source.send(1, b"EK\x01\x01cut off")
        source.publish(keys_of(4, 5, 6))
        source.barrier()
        wait_for(lambda: settled_epochs(read_lanes(kafka, topic_prefix, topic_prefix)) == [1, 1])
        await_visible(kafka, topics.rejected(topic_prefix, topic_prefix))  # its markers may come after the lanes'
    rejections = RejectedTopic(kafka, topic_prefix, topic_prefix).read()
    assert [(rejection.shard, rejection.record) for rejection in rejections] == [
        (0, b"\x00\x01\x02\x03"),
        (0, None),
        (1, b"EK\x01\x01cut off"),
    ]
    assert {rejection.reason for rejection in rejections} == {"bad_format"}
    check_exact(kafka, source, source.name)
