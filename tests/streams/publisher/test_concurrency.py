"""Threads that share a publisher, and trainers that share a model."""

import threading

import numpy as np

from ekko.streams.log import Cluster
from ekko.streams.publisher import Publisher
from tests.streams.publisher.source_log import (
    blocks_in,
    ones,
    rows_in,
)


def test_threads_may_share_a_publisher(cluster: Cluster, declared: str) -> None:
    errors: list[Exception] = []
    with Publisher(declared, cluster=cluster, queue_bytes=200_000) as publisher:

        def train(number: int) -> None:
            try:
                for _ in range(20):
                    publisher.publish("wide", np.arange(200) + number * 100, ones(200, 64), timeout_s=60)
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)

        threads = [threading.Thread(target=train, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(240)
        assert errors == []
        publisher.flush(120)
        assert publisher.acknowledged.rows == 4 * 20 * 200
    expected = np.zeros(500, int)
    for number in range(4):
        expected[number * 100 : number * 100 + 200] += 20
    assert rows_in(blocks_in(cluster, declared)) == {key: [int(value)] * 64 for key, value in enumerate(expected)}


def test_concurrent_trainers_lose_nothing(cluster: Cluster, declared: str) -> None:
    with (
        Publisher(declared, cluster=cluster, trainer="a") as a,
        Publisher(declared, cluster=cluster, trainer="b", transactional_id="b") as b,
    ):
        for step in range(30):
            a.publish("users", np.arange(50), ones(50))
            b.publish("users", np.arange(50), ones(50), position=str(step).encode())
    assert rows_in(blocks_in(cluster, declared)) == {key: [60] * 4 for key in range(50)}
