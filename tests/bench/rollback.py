"""How long a rollback takes: `python -m tests.bench.rollback [--rows 10000000 --dim 64 --changed 1000000]`.

Every process is real (broker, state manager, fan-out, one store) and everything goes through Kafka. The clock starts
when the rollback is asked for, and is read at the first clean row that a client gets, and when the replica announces
`readable` and `durable`; what the command itself waits for (reading states and members, fencing) is in it. After each
rollback the store's checksum is compared with the one before the voided rows came. In the same run, what one would do
without an undo:

- snapshot road: the store's folder as it was at the state, put back, and the process started: until it serves.
- replay road: the store started with nothing, reading its lanes again with the voided epochs left out: until it serves.

The larger undo is done five times; told are the median, and the worst.

Twenty more rollbacks of a thousand rows, at whatever moment of the manager's, tell how long the barrier takes: in half
of them, and at most in 19.

`detection_s` is taken by `tests.bench.detection` on event time. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ekko.ops import rollback
from ekko.ops.broker import Broker
from ekko.ops.settings import load
from ekko.schemas.declarations import TableDeclaration
from ekko.schemas.errors import EkkoError, RolledBack
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.bench.detection import detection
from tests.bench.store_work import machine
from tests.ops.deployment import Deployment

BLOCK = 20_000
PATIENCE_S = 900.0
"""For millions of rows to go all the way; a bench that hangs ends."""
TIMES = 5
"""The large undo is done so often, and its median told: where it falls between two barriers is chance."""
TABLE = "embedding"
EPOCH_S = 2.0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Timed:
    """Seconds from asking for a rollback to its stages."""

    clean_read_s: float = float("nan")
    stages: dict[str, float] = field(default_factory=dict)


class Bench:
    """A deployment with a table of many rows."""

    def __init__(self, deployment: Deployment, rows: int, dim: int) -> None:
        self.deployment, self.rows, self.dim = deployment, rows, dim
        self.rng = np.random.default_rng(11)
        self.region = deployment.regions[0]
        self.settings = load(None, bootstrap=deployment.bootstrap)
        self.generation: list[int] = []
        self.publisher = Publisher(
            deployment.model.name,
            bootstrap=deployment.bootstrap,
            trainer="bench",
            on_rollback=self.generation.append,
            queue_bytes=256 * 1024 * 1024,
        )
        self.gradients = (1e-3 * self.rng.normal(size=(BLOCK, dim))).astype(np.float32)

    def publish(self, keys: np.ndarray) -> None:
        """One delta a key: realistic steps, so that rows travel as int16."""
        for start in range(0, len(keys), BLOCK):
            part = keys[start : start + BLOCK]
            scales = np.exp(self.rng.normal(size=(len(part), 1))).astype(np.float32)
            self.publisher.publish(TABLE, part, self.gradients[: len(part)] * scales, timeout_s=120)
        self.publisher.flush(120)

    def settle(self) -> int:
        """Wait until the region is complete at a state that holds everything published; its number."""
        return self.deployment.wait_healthy(PATIENCE_S)

    def checksum(self) -> int:
        with self.deployment.client(self.region) as client:
            return client.checksum(TABLE, timeout_s=120).checksum

    def roll_back(self, to: int, changed: np.ndarray) -> Timed:
        """Roll back and time it."""
        timed = Timed()
        with self.deployment.client(self.region) as client:
            clean = client.lookup(TABLE, changed[:1], as_of=to).values.copy()
            assert not np.array_equal(client.lookup(TABLE, changed[:1]).values, clean)
            start = time.perf_counter()
            reader = threading.Thread(target=self._first_clean_read, args=(changed[:1], clean, start, timed))
            reader.start()

            def tell(text: str) -> None:
                for stage in ("readable", "durable", "barrier"):
                    if stage in text:
                        timed.stages[stage] = time.perf_counter() - start

            request = rollback.Request(self.deployment.model.name, to, "bench", False, False, 120.0)
            assert rollback.run(self.settings, request, tell)
            reader.join()
        return timed

    def _first_clean_read(self, key: np.ndarray, clean: np.ndarray, start: float, timed: Timed) -> None:
        with self.deployment.client(self.region) as client:
            while not np.array_equal(client.lookup(TABLE, key).values, clean):
                time.sleep(0.005)  # this thread shares the interpreter with the command that is measured
        timed.clean_read_s = time.perf_counter() - start

    def acknowledge(self) -> None:
        """Let the publisher learn of the rollback: it says so once, and the next call is welcome."""
        try:
            self.publish(np.zeros(1, np.uint64))
        except RolledBack:
            return
        raise AssertionError("the publisher has not heard of the rollback")

    def until_serving(self, prepare: Callable[[], None]) -> float:
        """Kill the store, prepare its folder, start it: seconds from the start until it serves."""
        store = self.deployment.stores[self.region]
        if store.process.poll() is None:
            store.kill()
        prepare()
        start = time.perf_counter()
        store.start()
        with self.deployment.client(self.region) as client:
            while time.perf_counter() - start < PATIENCE_S:
                try:
                    client.lookup(TABLE, np.arange(1, dtype=np.uint64))
                    return time.perf_counter() - start
                except EkkoError:
                    time.sleep(0.02)
        raise AssertionError(f"the store does not serve within {PATIENCE_S} s")


def undo(bench: Bench, changed: int) -> Timed:
    """Change rows, roll them back, check the result."""
    state = bench.settle()
    before = bench.checksum()
    keys = np.sort(bench.rng.choice(bench.rows, changed, replace=False)).astype(np.uint64)
    start = time.perf_counter()
    bench.publish(keys)
    bench.settle()
    say(f"{changed} rows changed and complete within {time.perf_counter() - start:.1f} s")
    timed = bench.roll_back(state, keys)
    assert bench.checksum() == before, "the store is not what it was"
    stages = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in timed.stages.items())
    say(f"rollback of {changed} rows: first clean read {timed.clean_read_s:.3f} s, {stages}; checksum equal")
    bench.acknowledge()
    return timed


def median(seconds: list[float]) -> float:
    return round(float(np.median(seconds)), 3)


def again(bench: Bench, times: int) -> dict[str, float]:
    """Quantiles over many small rollbacks: seconds to the barrier, and until it is readable everywhere."""
    found = []
    bench.settle()
    before = bench.checksum()
    for _ in range(times):
        state = bench.settle()
        keys = np.sort(bench.rng.choice(bench.rows, 1_000, replace=False)).astype(np.uint64)
        bench.publish(keys)
        bench.settle()
        time.sleep(bench.rng.random() * EPOCH_S)
        found.append(bench.roll_back(state, keys).stages)
        bench.acknowledge()
    assert bench.checksum() == before, "the store is not what it was"
    told: dict[str, float] = {}
    for stage in ("barrier", "readable"):
        seconds = [stages[stage] for stages in found]
        for name, share in (("p50", 0.5), ("p95", 0.95)):
            told[f"{stage}_{name}_s"] = round(float(np.quantile(seconds, share)), 3)
    say(f"{times} rollbacks of 1000 rows: {told}; checksum equal")
    return told


def roads(bench: Bench, changed: int) -> tuple[float, float]:
    """Seconds of the snapshot road and of the replay road, after a rollback of as many rows."""
    folder = bench.deployment.folder / bench.region
    snapshot = folder.with_name("snapshot")
    state = bench.settle()
    before = bench.checksum()
    bench.deployment.stores[bench.region].end()
    shutil.copytree(folder, snapshot, copy_function=_link_or_copy)
    bench.until_serving(lambda: None)
    keys = np.sort(bench.rng.choice(bench.rows, changed, replace=False)).astype(np.uint64)
    bench.publish(keys)
    bench.settle()
    bench.roll_back(state, keys)

    def put_back() -> None:
        shutil.rmtree(folder)
        shutil.move(snapshot, folder)

    by_snapshot = bench.until_serving(put_back)
    assert bench.checksum() == before, "the snapshot road led elsewhere"
    by_replay = bench.until_serving(lambda: shutil.rmtree(folder))
    assert bench.checksum() == before, "the replay road led elsewhere"
    say(f"snapshot road {by_snapshot:.1f} s, replay road {by_replay:.1f} s; checksums equal")
    bench.acknowledge()
    return by_snapshot, by_replay


def _link_or_copy(source: str, target: str) -> None:
    """As a snapshot is made: data files are linked, what RocksDB writes is copied."""
    if source.endswith(".sst"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def measure(rows: int, dim: int, changed: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="ekko-bench-") as folder, ExitStack() as opened:
        broker = opened.enter_context(Broker(Path(folder) / "broker"))
        kafka = opened.enter_context(closing(KafkaCluster(broker.bootstrap)))
        deployment = opened.enter_context(
            Deployment(
                *(kafka, broker.bootstrap, "bench", Path(folder)),
                table=TableDeclaration(TABLE, dim),
                regions=1,
                epoch_interval_s=EPOCH_S,
                shards=8,
                store_flags=("--memory", "14GiB"),
            )
        )
        bench = Bench(deployment, rows, dim)
        opened.callback(bench.publisher.close)
        start = time.perf_counter()
        bench.publish(np.arange(rows, dtype=np.uint64))
        bench.settle()
        say(f"{rows} rows of {dim} published and complete within {time.perf_counter() - start:.0f} s")
        few = undo(bench, changed // 10)
        many = [undo(bench, changed) for _ in range(TIMES)]
        small = again(bench, 20)
        by_snapshot, by_replay = roads(bench, changed)
    return {
        "rows": rows,
        "dim": dim,
        "changed": changed,
        "undo_1m_readable_s": median([timed.stages["readable"] for timed in many]),
        "undo_1m_readable_worst_s": round(max(timed.stages["readable"] for timed in many), 3),
        "undo_1m_clean_read_s": median([timed.clean_read_s for timed in many]),
        "undo_1m_durable_s": median([timed.stages["durable"] for timed in many]),
        "undo_1m_barrier_s": median([timed.stages["barrier"] for timed in many]),
        "undo_100k_readable_s": round(few.stages["readable"], 3),
        "undo_100k_durable_s": round(few.stages["durable"], 3),
        **small,
        "snapshot_road_s": round(by_snapshot, 2),
        "replay_road_s": round(by_replay, 2),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description="How long a rollback takes, beside the slow roads.")
    arguments.add_argument("--rows", type=int, default=10_000_000, help="rows of the table")
    arguments.add_argument("--dim", type=int, default=64, help="values a row")
    arguments.add_argument("--changed", type=int, default=1_000_000, help="rows that are changed and rolled back")
    given = arguments.parse_args()
    say(f"machine: {machine()}")
    found = measure(given.rows, given.dim, given.changed)
    say(json.dumps(found | detection()))


if __name__ == "__main__":
    main()
