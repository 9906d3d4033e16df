"""`ekko manager` and `ekko states` as processes, on a real broker."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ekko.ops.broker import Broker
from ekko.streams.kafka import KafkaCluster
from ekko.streams.manager.history import read_states
from tests.waiting import wait_for

from .conftest import World

EKKO = [str(Path(sys.executable).with_name("ekko"))]


@pytest.fixture
def world(broker: Broker, kafka: KafkaCluster, topic_prefix: str) -> World:
    assert kafka is not None  # deletes what the test declares
    return World(lambda: KafkaCluster(broker.bootstrap, timeout_s=60.0), topic_prefix[:60])


@contextmanager
def manager(bootstrap: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*EKKO, "manager", "--bootstrap", bootstrap, "--epoch-interval", "0.5", "--healthy-after", "0"]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait(120)


def test_a_manager_that_is_killed_is_followed_by_the_next_one(world: World, broker: Broker) -> None:
    def states() -> int:
        return len(read_states(world.cluster, world.codec, world.model))

    for round_number in range(1, 4):
        with manager(broker.bootstrap) as process:
            enough = states() + 3
            wait_for(lambda enough=enough: states() >= enough)  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL if round_number < 3 else signal.SIGTERM)
            code = process.wait(120)
    assert code == 0
    epochs = world.epochs()
    assert epochs == [list(range(1, len(epochs[0]) + 1))] * 3
    assert states() == len(epochs[0])


def test_managers_that_are_paused_anywhere_leave_every_shard_alike(world: World, broker: Broker) -> None:
    """Frozen for longer than a standby waits and a transaction may last, at whatever step; then it goes on."""

    def newest() -> int:
        return max(read_states(world.cluster, world.codec, world.model), default=0)

    rng = random.Random(8)
    with manager(broker.bootstrap) as one, manager(broker.bootstrap) as other:
        wait_for(lambda: newest() >= 2)
        for frozen in (one, other) * 3:
            time.sleep(rng.uniform(0.4, 1.1))
            frozen.send_signal(signal.SIGSTOP)
            before = newest()
            try:
                wait_for(lambda before=before: newest() >= before + 2)  # type: ignore[misc]
                time.sleep(2.5)
            finally:
                frozen.send_signal(signal.SIGCONT)
        after = newest()
        wait_for(lambda: newest() >= after + 2)
        for process in (one, other):
            process.terminate()
            assert process.wait(120) == 0
    shards = world.barriers()
    assert shards == [shards[0]] * 3, "epoch, voids, generation and all else"
    assert [barrier.epoch for barrier in shards[0]] == list(range(1, len(shards[0]) + 1))
    assert list(world.states()) == [barrier.epoch for barrier in shards[0]]


def test_states_are_listed_with_each_regions_completeness(world: World, broker: Broker, topic_prefix: str) -> None:
    region = world.declare_region(topic_prefix[:50] + "-r")
    with manager(broker.bootstrap):
        wait_for(lambda: len(read_states(world.cluster, world.codec, world.model)) >= 2)
    run = [*EKKO, "states", world.model.name, "--bootstrap", broker.bootstrap]
    listed = subprocess.run([*run, "--json"], check=True, capture_output=True, text=True, timeout=180).stdout
    lines = [json.loads(line) for line in listed.splitlines()]
    assert [line["state"] for line in lines[:2]] == [1, 2]
    assert lines[0]["verdict"] == "candidate"
    assert lines[0]["regions"][region.name] == "no replica of shards 0,1,2"
    table = subprocess.run(run, check=True, capture_output=True, text=True, timeout=180).stdout
    assert "verdict" in table
    assert "candidate" in table
    missing = subprocess.run(
        [*EKKO, "states", "nobody", "--bootstrap", broker.bootstrap],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert missing.returncode == 1
    assert "model 'nobody' is not in the catalogue" in missing.stderr
