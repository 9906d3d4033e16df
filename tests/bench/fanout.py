"""The fan-out measured: `make bench-fanout` or `python -m tests.bench.fanout [--pairs 7] [--seconds 10]`.

(a) update latency, publish -> readable at a replica with its store on disk, idle and at 50 % and 80 % of the peak;
(b) one link at 1/40 of what its region needs (`tests.bench.wan`); (c) bandwidth cut by 92 % with k = 99; (d) bytes with
coalescing under a tenfold cut against the plain log. The last line is one JSON object.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.streams.log import read_all
from tests.bench import freshness, wan
from tests.bench.fanout_lab import MODEL, Child, Lab, Readable, drain, end, take
from tests.bench.load import DIM, KEYS, ZIPF

REGION = "east"
Figures = dict[str, float]


def latency_at(lab: Lab, replica: Child, rate: float, seconds: float, rows: int) -> Readable:
    """What became readable while rows came at this rate."""
    lab.publish(rate, 2.0, rows)
    drain(replica)
    lab.publish(rate, seconds, rows)
    return drain(replica, quiet_s=0.5)


def latencies(seconds: float) -> Figures:
    """Part (a)."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), [REGION]) as lab:
        lab.fanout(REGION)
        replica = lab.replica(REGION)
        lab.publish(1_000, 3.0, 50)
        idle = latency_at(lab, replica, 1_000, seconds, 50)
        took = time.monotonic()
        given = lab.publish(0, seconds, 2_000)
        applied = take(replica).rows
        peak = applied / (time.monotonic() - took)
        drain(replica, timeout_s=120)
        say(f"peak: {peak:,.0f} rows/s readable while {given:,.0f} rows/s were offered")
        found = {"idle": idle}
        for share in (0.5, 0.8):
            found[f"load_{share:.0%}"] = latency_at(lab, replica, share * peak, seconds, 1_000)
    figures = {"peak_rows_s": peak}
    for name, readable in found.items():
        for lane, values in (("express", readable.express), ("bulk", readable.bulk)):
            if values:
                p50, p99, p999 = np.percentile(values, (50, 99, 99.9))
                say(f"{name:9} {lane:8} p50 {p50:7.1f}  p99 {p99:7.1f}  p99.9 {p999:7.1f} ms  ({len(values)} blocks)")
    figures["idle_p99_ms"] = found["idle"].percentile(99)
    figures["half_load_p99_ms"] = found["load_50%"].percentile(99)
    return figures


def stored_bytes(lab: Lab, topic: str) -> int:
    """Bytes of a topic's log as they crossed the network: compressed batches."""
    logs = (lab.far.broker.folder.path / "log").glob(f"{topic}-[0-9]*/*.log")
    return sum(log.stat().st_size for log in logs)


def source_bytes(lab: Lab) -> int:
    """Bytes of the source log: what a plain copy of it takes."""
    return stored_bytes(lab, topics.deltas(MODEL))


def sent_bytes(lab: Lab) -> int:
    """Bytes of both lanes of the region."""
    return sum(stored_bytes(lab, topics.lane(MODEL, REGION, lane)) for lane in Lane)


class Run(NamedTuple):
    """A load of some seconds: when it began, and bytes that the source log and the lanes grew by meanwhile."""

    began_us: int
    source: int
    sent: int


class Load(NamedTuple):
    """What is published: see `tests.bench.load`."""

    name: str
    rate: float
    seconds: float
    rows_a_call: int

    def publish(self, lab: Lab, seconds: float | None = None) -> None:
        """Publish it for its time, or for so long."""
        lab.publish(self.rate, self.seconds if seconds is None else seconds, self.rows_a_call, self.name)


def run_at(lab: Lab, load: Load, bandwidth: float | None = None) -> Run:
    """Publish while the region has this bandwidth (its fan-out's budget, and the link itself)."""
    settings = {} if bandwidth is None else {"bandwidth_bytes_per_s": bandwidth}
    fanout = lab.fanout(REGION, **settings)
    lab.caught_up(REGION)
    load.publish(lab, 2.0)
    # The link carries Kafka's own talk, too.
    lab.link.limit(0.0 if bandwidth is None else 1.5 * bandwidth)
    began_us, source_before, before = time.time_ns() // 1_000, source_bytes(lab), sent_bytes(lab)
    load.publish(lab)
    source, sent = source_bytes(lab) - source_before, sent_bytes(lab) - before
    time.sleep(freshness.SLO_S)
    lab.link.limit(0.0)
    end(fanout)
    return Run(began_us, source, sent)


def cut(load: Load) -> Figures:
    """Parts (c) and (d)."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), [REGION], slow=REGION) as lab:
        load.publish(lab, 1.0)
        whole = run_at(lab, load)
        plain = whole.source / load.seconds  # what a plain copy of the log needs
        uncut = freshness.measure(lab.kafka, REGION, whole.began_us)
        thin = run_at(lab, load, 0.08 * plain)
        late = freshness.measure(lab.kafka, REGION, thin.began_us)
        healed = lab.fanout(REGION)
        lab.caught_up(REGION)
        complete = bit_equal(lab)
        end(healed)
        before, source_before = sent_bytes(lab), source_bytes(lab)
        run_at(lab, load, 0.1 * plain)
        healed = lab.fanout(REGION)
        lab.caught_up(REGION)
        ratio = (sent_bytes(lab) - before) / (source_bytes(lab) - source_before)
        end(healed)
    say(f"{load.name}: a plain copy takes {plain:,.0f} bytes/s; uncut {uncut.late:.2%} of the score is late")
    part = thin.sent / thin.source
    say(f"cut by 92 %: {part:.1%} of its bytes, {late.late:.2%} late, {late.updates:,} updates")
    say(f"after the cut bit-equal to the source: {complete}; tenfold cut, then drained: {ratio:.2f} of the plain log")
    return {
        "cut92_express_p99_ms": late.urgent_p99_ms,
        "cut92_freshness_lost": late.late - uncut.late,
        "cut92_bytes_saved": 1 - thin.sent / thin.source,
        "cut92_bit_equal_after": float(complete),
        "coalescing_bytes_ratio": ratio,
    }


def bit_equal(lab: Lab) -> bool:
    """Whether the sum of everything in the lanes is the sum of everything in the source log."""
    source = freshness.sum_rows(read_all(lab.kafka, topics.deltas(MODEL), timeout_s=120))
    lanes = [read_all(lab.kafka, topics.lane(MODEL, REGION, lane), timeout_s=120) for lane in Lane]
    sent = freshness.sum_rows([record for records in lanes for record in records])
    return all(np.array_equal(source[name], sent[name]) for name in source)


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of part (b)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=20_000, help="rows a second of parts (c) and (d)")
    arguments = parser.parse_args()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    say(f"{platform.platform()}, {cores} cores, load {load:.1f}; dim {DIM}, Zipf({ZIPF}) over {KEYS:,} keys, acks=all")
    figures = latencies(arguments.seconds)
    figures |= wan.run(arguments.pairs)
    wide = cut(Load("wide", arguments.rate, arguments.seconds, 1_000))
    figures |= {f"wide_{name}": value for name, value in wide.items()}
    figures |= cut(Load("drift", arguments.rate, arguments.seconds, 1_000))
    say(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
