"""What cannot be mended ends the process; what hangs shows (CASES 44 and 45). The process runs in a thread here."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.errors import EkkoError, StoreUnwritable, TopicMissing
from ekko.storage.store import Store
from ekko.streams.kafka import KafkaCluster
from ekko.streams.replica.process import StoreProcess, StoreSettings
from tests.streams.lanes_by_hand import Lanes

STALL_S = 1.5
MEMORY_BYTES = 64 * 1024 * 1024


class Running:
    """A store process in a thread, and what ended it."""

    def __init__(self, cluster: KafkaCluster, region: str, folder: Path, shards: frozenset[int] | None = None) -> None:
        settings = StoreSettings(region, "a", folder, shards, port=0, stall_s=STALL_S, memory_bytes=MEMORY_BYTES)
        self.process = StoreProcess(cluster, settings)
        self.ended_by: BaseException | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.process.run(self.stop)
        except EkkoError as error:
            self.ended_by = error

    def health(self) -> tuple[int, dict[str, Any]]:
        try:
            reply = urllib3.request("GET", f"http://{self.process.address}/health", retries=False, timeout=5.0)
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return reply.status, json.loads(reply.data)

    def told(self, figure: str, **labels: str) -> float | None:
        """A figure as Prometheus gets it."""
        reply = urllib3.request("GET", f"http://{self.process.address}/metrics", retries=False, timeout=5.0)
        families = text_string_to_metric_families(reply.data.decode())
        samples = [sample for family in families for sample in family.samples]
        return next((each.value for each in samples if (each.name, each.labels) == (figure, labels)), None)

    def wait(self, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {self.health()}"
            time.sleep(0.02)


@pytest.fixture
def running(kafka: KafkaCluster, lanes: Lanes, tmp_path: Path) -> Iterator[Running]:
    running = Running(kafka, lanes.region_name, tmp_path / "store")
    running.wait(lambda: running.health()[1].get("ready") and lanes.model.name not in running.health()[1]["waiting"])
    yield running
    running.stop.set()
    running.thread.join(60)
    assert not running.thread.is_alive()


def test_an_apply_that_hangs_turns_health_red_and_then_ends_the_process(
    lanes: Lanes, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    apply = Store.apply
    monkeypatch.setattr(Store, "apply", lambda store, *rows: go_on.wait(60) and apply(store, *rows))
    lanes.send(Lane.EXPRESS, 0)
    begun = time.monotonic()
    running.wait(lambda: running.health()[0] == 503)
    assert time.monotonic() - begun < 3 * STALL_S
    assert "has made no progress for" in running.health()[1]["problems"][0]
    running.wait(lambda: not running.health()[0])  # it stops serving once it gives up
    go_on.set()
    running.thread.join(60)
    assert isinstance(running.ended_by, EkkoError)
    assert "no progress" in running.ended_by.message


def test_an_error_in_the_apply_loop_ends_the_process(
    lanes: Lanes, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Store, "apply", broken)
    lanes.send(Lane.EXPRESS, 0)
    running.thread.join(30)
    assert isinstance(running.ended_by, EkkoError)
    assert "ZeroDivisionError('a bug')" in running.ended_by.message


def test_a_topic_that_vanishes_ends_the_process(kafka: KafkaCluster, lanes: Lanes, running: Running) -> None:
    kafka.delete_topics([topics.lane(lanes.model.name, lanes.region_name, Lane.EXPRESS)])
    running.wait(lambda: running.health()[0] == 503)
    running.thread.join(60)
    assert isinstance(running.ended_by, TopicMissing)


def test_a_disk_that_fails_is_told_until_a_flush_succeeds(
    lanes: Lanes, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = running.process.runners[lanes.model.name]
    assert runner.store is not None
    durable = runner.store._durable

    def full(*_: object) -> None:
        raise StoreUnwritable("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "commit", full)
        lanes.send(Lane.EXPRESS, 0)
        running.wait(lambda: running.health()[0] == 503)
        assert "no space left on device" in running.health()[1]["problems"][0]
        assert running.told("ekko_store_healthy") == 0
        running.wait(lambda: running.told("ekko_store_unwritable", model=lanes.model.name) == 1)
    running.wait(lambda: running.health()[0] == 200)
    running.wait(lambda: running.told("ekko_store_unwritable", model=lanes.model.name) == 0)
    assert (running.told("ekko_store_healthy"), running.told("ekko_store_stopped", model=lanes.model.name)) == (1, 0)
    assert running.told("ekko_store_memory_limit_bytes") == MEMORY_BYTES
    assert runner.store.flushed is not None
    assert runner.store.flushed.shards[0].contiguous == 1


def test_a_model_of_which_no_shard_is_held_is_named_once_in_the_log_and_in_health(
    kafka: KafkaCluster, lanes: Lanes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = Running(kafka, lanes.region_name, tmp_path / "store", frozenset({7}))
    told = f"model {lanes.model.name} is not served here: its shards are 0 to 1, this replica's are 7 (--shards)"
    try:
        running.wait(lambda: told in running.health()[1].get("problems", ()))
        assert running.health()[0] == 200
        assert [record.message for record in caplog.records].count(told) == 1
    finally:
        running.stop.set()
        running.thread.join(60)
