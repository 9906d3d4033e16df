"""How fast a trainer publishes: `python -m tests.bench.publisher [--seconds 5]`, with a broker of its own beside it.

Gradients are realistic: normal values times a log-normal scale a row, AdaGrad-sized steps (1e-3), Zipf keys. Printed
beside the publisher's rate: what its core does without Kafka, and what a bare producer of confluent_kafka does with the
same encoded blocks, so that it is seen where the time goes.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Cluster
from ekko.streams.publisher import Publisher
from ekko.streams.publisher import batches as publishing
from ekko.streams.publisher.totals import SealedBlock, seal

SHARDS = 8
KEYS = 1_000_000
ZIPF = 1.05

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One row of the output: `rows` a call, before equal keys are summed."""

    rows: int
    dim: int

    @property
    def table(self) -> TableDeclaration:
        return TableDeclaration(f"dim{self.dim}", dim=self.dim)


CASES = (Case(1_000, 16), Case(10_000, 16), Case(1_000, 64), Case(10_000, 64))


def batches(case: Case, count: int = 16) -> list[Batch]:
    """Batches of Zipf keys and gradient-like deltas, float32."""
    rng = np.random.default_rng(7)
    weights = 1.0 / np.arange(1, KEYS + 1) ** ZIPF
    cumulative = np.cumsum(weights / weights.sum())
    found = []
    for _ in range(count):
        keys = np.searchsorted(cumulative, rng.random(case.rows)).astype(np.uint64)
        scale = 1e-3 * np.exp(rng.normal(size=(case.rows, 1)))
        found.append((keys, (rng.normal(size=(case.rows, case.dim)) * scale).astype(np.float32)))
    return found


def rate(seconds: float, step: Callable[[int], int], finish: Callable[[], None] = lambda: None) -> float:
    """Rows a second that `step(number)` handles, `finish` included."""
    rows, number, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        rows += step(number)
        number += 1
    finish()
    return rows / (time.perf_counter() - started)


def sealed_blocks(case: Case, batch: Batch, number: int) -> tuple[int, list[SealedBlock]]:
    """What the core makes of a batch: distinct rows, encoded blocks."""
    checked = publishing.check_batch(case.table, *batch, None)
    rows = publishing.quantise(checked, SHARDS, seed=1, sequence=number)
    template = DeltaBlock(0, case.table.name, 0, np.empty(0, np.uint64), np.empty((0, case.dim), np.int32))
    blocks = publishing.cut(rows, template, publishing.BlockLimits(65_536))
    return len(rows.keys), [seal(block, topics.deltas("bench"), 0.0) for block in blocks]


def measure(cluster: Cluster, case: Case, seconds: float, log: Path) -> dict[str, float]:
    """The rates of one case; `log` is the broker's log folder, to see what it got."""
    given = batches(case)
    core = rate(seconds, lambda number: (sealed_blocks(case, given[number % len(given)], number), case.rows)[1])

    prepared = [sealed_blocks(case, batch, number)[1] for number, batch in enumerate(given)]
    with closing(cluster.writer(queue_bytes=256 << 20)) as writer:

        def send(number: int) -> int:
            for block in prepared[number % len(prepared)]:
                writer.send(block.output)
            writer.flush(0.0 if number % 64 else 30.0)
            return case.rows

        bare = rate(seconds, send, lambda: _flushed(writer.flush(60.0)))

    with Publisher("bench", cluster=cluster) as publisher:

        def publish(number: int) -> int:
            publisher.publish(case.table.name, *given[number % len(given)], timeout_s=60)
            return case.rows

        publish(0)
        publisher.flush(30)
        bytes_before, rows_before = _log_bytes(log), publisher.acknowledged.rows
        whole = rate(seconds, publish, lambda: publisher.flush(60))
        wire = (_log_bytes(log) - bytes_before) / (publisher.acknowledged.rows - rows_before)
        latencies = sorted(_latency(publisher, case, given[number % len(given)]) for number in range(100))
    distinct = sum(block.rows for blocks in prepared for block in blocks)
    size = sum(block.size for blocks in prepared for block in blocks)
    return {
        "core": core,
        "bare": bare,
        "publisher": whole,
        "distinct": distinct / (case.rows * len(given)),
        "bytes_a_row": size / distinct,
        "wire_bytes_a_row": wire,
        "acknowledged_ms_p50": 1e3 * statistics.median(latencies),
        "acknowledged_ms_p99": 1e3 * latencies[98],
    }


def _log_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("bench.deltas-*/*.log"))


def _flushed(left: int) -> None:
    assert left == 0


def _latency(publisher: Publisher, case: Case, batch: Batch) -> float:
    started = time.perf_counter()
    publisher.publish(case.table.name, *batch)
    publisher.flush(30)
    return time.perf_counter() - started


def results(seconds: float, compression: str) -> Iterator[tuple[Case, dict[str, float]]]:
    """Every case, on one fresh broker."""
    tables = tuple({case.table.name: case.table for case in CASES}.values())
    wanted = Declarations(models=(ModelDeclaration("bench", shards=SHARDS, tables=tables),))
    with (
        tempfile.TemporaryDirectory() as folder,
        Broker(Path(folder) / "broker") as broker,
        closing(KafkaCluster(broker.bootstrap, {"compression.type": compression})) as cluster,
    ):
        declare(cluster, wanted, lambda _: cluster)
        for case in CASES:
            yield case, measure(cluster, case, seconds, broker.folder.path / "log")


def main() -> None:
    """Print a line a case, and one of JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--compression", default="lz4", help="lz4, zstd or none")
    arguments = parser.parse_args()
    sys.stdout.write(f"{SHARDS} shards, keys Zipf({ZIPF}) of {KEYS:,}, {arguments.compression}, rates in rows/s\n")
    sys.stdout.write("rows/call dim distinct bytes/row   wire      core      bare  publisher MB/s  ack p50/p99 ms\n")
    lines = []
    for case, found in results(arguments.seconds, arguments.compression):
        megabytes = found["publisher"] * found["distinct"] * found["bytes_a_row"] / 1e6
        sys.stdout.write(
            f"{case.rows:9,} {case.dim:3} {found['distinct']:8.2f} {found['bytes_a_row']:9.1f} "
            f"{found['wire_bytes_a_row']:6.1f} {found['core']:9,.0f} "
            f"{found['bare']:9,.0f} {found['publisher']:10,.0f} {megabytes:4.0f} "
            f"{found['acknowledged_ms_p50']:7.1f} / {found['acknowledged_ms_p99']:.1f}\n"
        )
        lines.append({"rows": case.rows, "dim": case.dim, **found})
    sys.stdout.write(json.dumps(lines) + "\n")


if __name__ == "__main__":
    main()
