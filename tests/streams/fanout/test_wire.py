"""What crosses the link is counted as it crosses it: against a proxy that counts every byte."""

from pathlib import Path

import numpy as np
import pytest

from ekko.streams.fanout.wire import WireMeter
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition, TopicSpec
from tests.network.link import FarBroker
from tests.waiting import wait_for


def test_estimates_and_corrections_add_up_to_what_was_counted() -> None:
    meter, random_ = WireMeter(), np.random.default_rng(5)
    paid, wire = 0.0, 0
    for _ in range(200):
        encoded = int(random_.integers(0, 50_000))
        paid += meter.sent(encoded)
        wire += encoded // 3 + 200
        if random_.random() < 0.3:  # counts come now and then only
            paid += meter.counted(wire)
    paid += meter.counted(wire)
    assert paid == pytest.approx(wire)
    assert meter.ratio == pytest.approx(1 / 3, rel=0.1)


def test_a_count_in_the_middle_of_a_transaction_does_not_spoil_the_ratio() -> None:
    meter, wire = WireMeter(), 0
    for number in range(100):
        wire += 5_000
        if number % 2:
            meter.counted(wire - 4_000)  # of this transaction only a part had left when it was counted
        meter.sent(10_000)
        meter.counted(wire)
    assert meter.ratio == pytest.approx(0.5, rel=0.3)


def test_without_a_count_bytes_are_taken_as_they_are() -> None:
    meter = WireMeter()
    assert meter.sent(1_000) == 1_000
    assert meter.counted(0) == 0.0


def test_the_writer_counts_what_the_link_carries(tmp_path: Path) -> None:
    random_ = np.random.default_rng(1)
    with FarBroker(tmp_path) as far:
        near = KafkaCluster(far.near)
        near.create_topics([TopicSpec("lane", 1)])
        writer = KafkaCluster(far.link.bootstrap).transactional_writer("counted", thin_link=True)
        writer.transact([Output(Partition("lane", 0), b"begin")])
        counted, carried, encoded = writer.wire_bytes, far.link.carried().up, 0
        for _ in range(40):
            value = (random_.normal(size=(200, 64)) * 20_000).astype(np.int32).tobytes()
            encoded += len(value)
            writer.transact([Output(Partition("lane", 0), value)])

        def agree() -> bool:  # the cluster's own administrative client talks over the link, too
            writer._producer.poll(0.1)  # which takes counts in
            return writer.wire_bytes - counted == pytest.approx(far.link.carried().up - carried, rel=0.02)

        wait_for(agree)
        counted = writer.wire_bytes - counted
        writer.close()
        near.close()
    assert 0 < counted < 0.85 * encoded
