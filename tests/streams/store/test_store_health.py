"""What cannot be mended ends the process; what hangs shows (CASES 44 and 45). The process runs in a thread here."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.errors import EkkoError, StoreUnwritable, TopicMissing
from ekko.storage.store import Store
from ekko.streams.applier.readers import LaneReaders
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition, Record
from ekko.streams.replica import health
from ekko.streams.replica.process import StoreProcess, StoreSettings
from tests.streams.lanes_by_hand import Lanes
from tests.waiting import PATIENCE_S

MEMORY_BYTES = 64 * 1024 * 1024
DEFAULT_STALL_S = StoreSettings("", "", Path()).stall_s


class Running:
    """A store process in a thread, and what ended it."""

    def __init__(
        self,
        cluster: KafkaCluster,
        region: str,
        folder: Path,
        shards: frozenset[int] | None = None,
        *,
        stall_s: float = DEFAULT_STALL_S,
    ) -> None:
        settings = StoreSettings(region, "a", folder, shards, port=0, stall_s=stall_s, memory_bytes=MEMORY_BYTES)
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
            reply = urllib3.request("GET", f"http://{self.process.address}/health", retries=False, timeout=30.0)
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return reply.status, json.loads(reply.data)

    def told(self, figure: str, **labels: str) -> float | None:
        """A figure as Prometheus gets it."""
        reply = urllib3.request("GET", f"http://{self.process.address}/metrics", retries=False, timeout=30.0)
        families = text_string_to_metric_families(reply.data.decode())
        samples = [sample for family in families for sample in family.samples]
        return next((each.value for each in samples if (each.name, each.labels) == (figure, labels)), None)

    def wait(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {self.health()}"
            time.sleep(0.02)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(120)
        assert not self.thread.is_alive()


@contextmanager
def ready(lanes: Lanes, folder: Path, **options: float) -> Iterator[Running]:
    running = Running(lanes.cluster, lanes.region_name, folder, **options)  # type: ignore[arg-type]

    def serves() -> bool:
        told = running.health()[1]
        return bool(told.get("ready")) and lanes.model.name not in told["waiting"]

    try:
        running.wait(serves)
        yield running
    finally:
        running.end()


@pytest.fixture
def running(lanes: Lanes, tmp_path: Path) -> Iterator[Running]:
    with ready(lanes, tmp_path / "store") as running:
        yield running


def test_an_apply_that_hangs_turns_health_red_and_then_ends_the_process(
    lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    apply = Store.apply
    give_up_after = health._GIVE_UP_AFTER
    monkeypatch.setattr(health, "_GIVE_UP_AFTER", math.inf)  # however long it takes until it is seen to be red
    with ready(lanes, tmp_path / "store", stall_s=1.5) as running:
        monkeypatch.setattr(Store, "apply", lambda store, *rows: go_on.wait(300) and apply(store, *rows))
        lanes.send(Lane.EXPRESS, 0)
        begun = time.monotonic()
        running.wait(lambda: running.health()[0] == 503)
        assert time.monotonic() - begun < DEFAULT_STALL_S, "what it was given, not the default"
        assert "has made no progress for" in running.health()[1]["problems"][0]
        monkeypatch.setattr(health, "_GIVE_UP_AFTER", give_up_after)
        running.wait(lambda: not running.health()[0])  # it stops serving once it gives up
        go_on.set()
    assert isinstance(running.ended_by, EkkoError)
    assert "no progress" in running.ended_by.message


def test_lanes_that_bring_nothing_any_more_are_assigned_again(
    lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, assign = LaneReaders.poll, LaneReaders.assign
    deaf: set[LaneReaders] = set()

    def hear(readers: LaneReaders, wait_s: float, limit: int) -> list[Record]:
        return poll(readers, wait_s, limit) if readers not in deaf else time.sleep(wait_s) or []

    def wake(readers: LaneReaders, positions: Mapping[Partition, int]) -> None:
        deaf.discard(readers)
        assign(readers, positions)

    monkeypatch.setattr(LaneReaders, "poll", hear)
    monkeypatch.setattr(LaneReaders, "assign", wake)
    monkeypatch.setattr(health, "_GIVE_UP_AFTER", math.inf)
    with ready(lanes, tmp_path / "store", stall_s=1.5) as running:
        applier = running.process._served.runners[lanes.model.name].applier
        assert applier is not None
        deaf.add(applier._readers)
        lanes.send(Lane.EXPRESS, 0)
        running.wait(lambda: applier.state.shards[0].contiguous == 1)
        running.wait(lambda: running.health()[0] == 200)
    assert running.ended_by is None


def test_an_error_in_the_apply_loop_ends_the_process(
    lanes: Lanes, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Store, "apply", broken)
    lanes.send(Lane.EXPRESS, 0)
    running.thread.join(120)
    assert isinstance(running.ended_by, EkkoError)
    assert "ZeroDivisionError('a bug')" in running.ended_by.message


def test_a_topic_that_vanishes_ends_the_process(kafka: KafkaCluster, lanes: Lanes, running: Running) -> None:
    kafka.delete_topics([topics.lane(lanes.model.name, lanes.region_name, Lane.EXPRESS)])
    running.wait(lambda: running.health()[0] == 503)
    running.process._health._stall_s = 0.0  # it has been seen: now it may give up
    running.thread.join(120)
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
        running.wait(lambda: running.told("ekko_store_healthy") == 0)
        running.wait(lambda: running.told("ekko_store_unwritable", model=lanes.model.name) == 1)
    running.wait(lambda: running.health()[0] == 200)
    running.wait(lambda: running.told("ekko_store_unwritable", model=lanes.model.name) == 0)
    running.wait(lambda: running.told("ekko_store_healthy") == 1)
    assert running.told("ekko_store_stopped", model=lanes.model.name) == 0
    assert running.told("ekko_store_memory_limit_bytes") == MEMORY_BYTES
    store = runner.store
    running.wait(lambda: store.flushed is not None and store.flushed.shards[0].contiguous == 1)


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
        running.end()
