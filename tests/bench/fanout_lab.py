"""The processes that the fan-out's measurements need, on one broker with a link in front of the slow region."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition, read_range
from tests.bench.load import DIM, TABLE
from tests.network.link import FarBroker

MODEL, SHARDS = "bench", 2
ROOT = Path(__file__).parents[2]


class Readable(NamedTuple):
    """What became readable at a replica since it was last asked; latencies in milliseconds, a block each."""

    rows: int
    express: list[float]
    bulk: list[float]

    def percentile(self, percent: float) -> float:
        """Of both lanes."""
        both = self.express + self.bulk
        return float(np.percentile(both, percent)) if both else float("nan")


class Child:
    """A Python process that answers every line with one line."""

    def __init__(self, log: Path, *arguments: str) -> None:
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        assert self.read() == "ready", f"{arguments[0]} did not start, see {log}"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        for end in (self.process.stdin, self.process.stdout):
            if end is not None:
                end.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


class Lab:
    """Broker, manager, trainer, and what is started with it; a context manager.

    Attributes:
        kafka: a connection beside the link; link: what `slow` regions are reached over.
    """

    def __init__(self, folder: Path, regions: list[str], *, slow: str = "", epoch_interval_s: float = 5.0) -> None:
        self.folder, self._opened = folder, ExitStack()
        self.far = self._opened.enter_context(FarBroker(folder / "broker"))
        self.kafka, self.link = KafkaCluster(self.far.near), self.far.link
        self.slow = slow
        model = ModelDeclaration(MODEL, shards=SHARDS, tables=(TableDeclaration(TABLE, DIM),))
        declared = tuple(RegionDeclaration(region) for region in regions)
        declare(self.kafka, Declarations(declared, (model,)), lambda _: self.kafka)
        self.ekko("manager", "--epoch-interval", str(epoch_interval_s))
        self.load = self.child("tests.bench.load", self.far.near, MODEL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def ekko(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start an `ekko` process."""
        command = [str(Path(sys.executable).with_name("ekko")), *arguments, "--bootstrap", self.far.near]
        with (self.folder / "processes.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._opened.callback(end, process)
        return process

    def child(self, *arguments: str) -> Child:
        """Start a process of the lab."""
        child = Child(self.folder / "children.log", *arguments)
        self._opened.callback(child.close)
        return child

    def fanout(self, region: str, **settings: object) -> "subprocess.Popen[bytes]":
        """Start a region's fan-out with these settings of the region."""
        lines = [f"[region.{region}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
        if region == self.slow:
            lines.append(f'bootstrap = "{self.link.bootstrap}"')
        config = self.folder / f"{region}.toml"
        config.write_text("\n".join(lines) + "\n")
        return self.ekko("fanout", "--region", region, "--config", str(config))

    def replica(self, region: str) -> Child:
        """Start a replica near its region: it does not read over the link."""
        folder = self.folder / f"replica-{region}-{time.monotonic_ns()}"
        return self.child("tests.bench.replica", self.far.near, region, MODEL, str(folder))

    def caught_up(self, region: str, timeout_s: float = 120.0) -> None:
        """Wait until everything that is in the source log now has been sent to a region."""
        sources = [Partition(topics.deltas(MODEL), shard) for shard in range(SHARDS)]
        ends = {at.number: bounds.end for at, bounds in self.kafka.bounds(sources).items()}
        deadline = time.monotonic() + timeout_s
        while not all(self._settled_offset(region, shard) >= end for shard, end in ends.items()):
            assert time.monotonic() < deadline, f"region {region} does not catch up"
            time.sleep(0.2)

    def _settled_offset(self, region: str, shard: int) -> int:
        """Source offset up to which everything has been sent, by the shard's last fan-out state."""
        partition = Partition(topics.fanout(MODEL, region), shard)
        bounds = self.kafka.bounds([partition])[partition]
        records = read_range(self.kafka, {partition: max(bounds.low, bounds.end - 20)})
        return int(Codec().decode(records[-1].value).settled.offset) if records else 0

    def publish(self, rate: float, seconds: float, rows_a_call: int, load: str = "wide") -> float:
        """Publish at a pace and wait for its end; returns the rows a second given. Loads: see `tests.bench.load`."""
        self.load.tell(f"{load} {rate} {seconds} {rows_a_call}")
        rows, took_s = self.load.read().split()
        return int(rows) / float(took_s)


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def take(replica: Child) -> Readable:
    """What became readable since the last call."""
    replica.tell("take")
    return Readable(**json.loads(replica.read()))


Positions = dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]
"""(lane, shard) -> offsets, rising, and when everything before each had become readable, microseconds since 1970."""


def positions(replica: Child) -> Positions:
    """How far the lanes have become readable since the last call, and when."""
    replica.tell("positions")
    found: Positions = {}
    for at, pairs in json.loads(replica.read()).items():
        lane, _, shard = at.partition("/")
        offsets, times_us = np.array(pairs, np.int64).T
        found[lane, int(shard)] = offsets, times_us
    return found


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, by force if it will not."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def drain(replica: Child, quiet_s: float = 1.0, timeout_s: float = 60.0) -> Readable:
    """Wait until nothing becomes readable any more; returns all that did."""
    found = take(replica)
    deadline, last = time.monotonic() + timeout_s, time.monotonic()
    while time.monotonic() < min(deadline, last + quiet_s):
        time.sleep(0.1)
        more = take(replica)
        if more.rows:
            last = time.monotonic()
        found = Readable(found.rows + more.rows, found.express + more.express, found.bulk + more.bulk)
    return found
