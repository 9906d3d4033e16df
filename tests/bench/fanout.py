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


def sent_bytes(lab: Lab) -> int:
    """Bytes of both lanes of the region."""
    return sum(stored_bytes(lab, topics.lane(MODEL, REGION, lane)) for lane in Lane)


def run_at(lab: Lab, rate: float, seconds: float, replica: Child, **settings: object) -> tuple[int, Readable]:
    """Publish to a fan-out with these settings; returns when it began, and what was readable until it ended."""
    fanout = lab.fanout(REGION, **settings)
    lab.publish(rate, 2.0, 1_000)
    time.sleep(2.0)
    take(replica)
    began_us = time.time_ns() // 1_000
    lab.publish(rate, seconds, 1_000)
    time.sleep(3.0)
    readable = take(replica)
    end(fanout)
    return began_us, readable


def cut(seconds: float, rate: float) -> Figures:
    """Parts (c) and (d)."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), [REGION], slow=REGION) as lab:
        replica = lab.replica(REGION)
        before, source_before = sent_bytes(lab), stored_bytes(lab, topics.deltas(MODEL))
        began_us, _ = run_at(lab, rate, seconds, replica)
        whole = sent_bytes(lab) - before
        use = whole / (seconds + 2.0)
        uncut = freshness.measure(lab.kafka, REGION, began_us)
        before = sent_bytes(lab)
        lab.link.limit(0.08 * use * 1.5)  # the link itself, with room for Kafka's own talk
        began_us, readable = run_at(lab, rate, seconds, replica, bandwidth_bytes_per_s=0.08 * use)
        cut_bytes = sent_bytes(lab) - before
        lab.link.limit(0)
        thin = freshness.measure(lab.kafka, REGION, began_us)
        healed = lab.fanout(REGION)
        drain(replica, quiet_s=3.0)
        complete = bit_equal(lab)
        end(healed)
        before, source_before = sent_bytes(lab), stored_bytes(lab, topics.deltas(MODEL))
        run_at(lab, rate, seconds, replica, bandwidth_bytes_per_s=0.1 * use)
        healed = lab.fanout(REGION)
        drain(replica, quiet_s=3.0)
        ratio = (sent_bytes(lab) - before) / (stored_bytes(lab, topics.deltas(MODEL)) - source_before)
    say(f"uncut: {use:,.0f} bytes/s, {uncut.late:.2%} of the score-weighted updates later than {freshness.SLO_S} s")
    say(f"cut by 92 %: {cut_bytes / whole:.1%} of the bytes, {thin.late:.2%} late, {thin.updates:,} updates")
    say(f"after the cut bit-equal to the source: {complete}; tenfold cut, then drained: {ratio:.2f} of the plain log")
    return {
        "cut92_express_p99_ms": float(np.percentile(readable.express, 99)),
        "cut92_freshness_lost": thin.late - uncut.late,
        "cut92_bytes_saved": 1 - cut_bytes / whole,
        "cut92_bit_equal_after": float(complete),
        "coalescing_bytes_ratio": ratio,
    }


def bit_equal(lab: Lab) -> bool:
    """Whether the sum of everything in the lanes is the sum of everything in the source log."""
    source: dict[int, np.ndarray] = {}
    lanes: dict[int, np.ndarray] = {}
    for sums, names in ((source, [topics.deltas(MODEL)]), (lanes, [topics.lane(MODEL, REGION, lane) for lane in Lane])):
        for name in names:
            for record in read_all(lab.kafka, name, timeout_s=120):
                freshness.add_block(sums, record, KEYS, DIM)
    return np.array_equal(source[0], lanes[0])


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
    figures |= cut(arguments.seconds, arguments.rate)
    say(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
