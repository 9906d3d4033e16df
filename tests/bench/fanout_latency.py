"""Part (a) of the fan-out's bench: the peak that it sustains, and update latency at rest and at parts of the peak."""

import tempfile
import time
from pathlib import Path

import numpy as np

from ekko.streams.log import Output, Partition, TopicSpec
from tests.bench.fanout_lab import Child, Lab, Readable, drain, say

REGION = "east"
BOUND_MS = 1_000.0
"""Lag is bounded at a rate when everything that the rate brings is readable within so long, to its end."""

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
ROWS_A_CALL = 2_000


def latencies(seconds: float, peak_seconds: float) -> dict[str, float]:
    """Latencies idle and at 50 % and 80 % of the peak, the peak itself, and what one hop costs on this machine."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), [REGION]) as lab:
        lab.fanout(REGION)
        replica = lab.replica(REGION)
        lab.publish(1_000, 3.0, 50)
        hop = single_hop(lab)
        found = {"idle": latency_at(lab, replica, 1_000, seconds, 50)}
        peak = find_peak(lab, replica, peak_seconds)
        for share in (0.5, 0.8):
            found[f"load_{share:.0%}"] = latency_at(lab, replica, share * peak, seconds, 1_000)
    for name, readable in found.items():
        for lane, values in (("express", readable.express), ("bulk", readable.bulk)):
            if values:
                p50, p99, p999 = np.percentile(values, (50, 99, 99.9))
                say(f"{name:9} {lane:8} p50 {p50:7.1f}  p99 {p99:7.1f}  p99.9 {p999:7.1f} ms  ({len(values)} blocks)")
    return {
        "peak_rows_s": peak,
        "single_hop_p99_ms": hop,
        "idle_p50_ms": found["idle"].percentile(50),
        "idle_p99_ms": found["idle"].percentile(99),
        "half_load_p99_ms": found["load_50%"].percentile(99),
    }


def single_hop(lab: Lab, seconds: float = 4.0) -> float:
    """99th percentile of one produce -> consume (acks=all, 1 KiB, 100 a second), ms: what the machine itself costs."""
    lab.kafka.create_topics([TopicSpec("hop", 1)])
    partition = Partition("hop", 0)
    reader, writer = lab.kafka.reader(), lab.kafka.writer()
    reader.assign({partition: 0})
    found, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        writer.send(Output(partition, bytes(1024)))
        if reader.poll(1.0):
            found.append((time.perf_counter() - began) * 1e3)
        writer.poll()
        time.sleep(0.01)
    reader.close()
    writer.close()
    p50, p99 = np.percentile(found[len(found) // 4 :], (50, 99))
    say(f"a single produce -> consume hop, no transaction: p50 {p50:.1f}  p99 {p99:.1f} ms")
    return float(p99)


def latency_at(lab: Lab, replica: Child, rate: float, seconds: float, rows: int) -> Readable:
    """What became readable while rows came at this rate."""
    lab.publish(rate, 2.0, rows)
    drain(replica)
    lab.publish(rate, seconds, rows)
    return drain(replica, quiet_s=0.5)


def find_peak(lab: Lab, replica: Child, seconds: float) -> float:
    """The highest rate of row updates given to `publish` that is readable with bounded lag for so many seconds.

    Tried downwards from what the publisher can give; short tries first, then the whole time.
    """
    lab.publish(0, 2.0, ROWS_A_CALL)
    drain(replica, timeout_s=120)
    most = lab.publish(0, 4.0, ROWS_A_CALL)
    drain(replica, timeout_s=120)
    say(f"the publisher alone gives {most:,.0f} row updates/s")
    for share in SHARES:
        if sustains(lab, replica, share * most, seconds / 6) and sustains(lab, replica, share * most, seconds):
            return share * most
    return float("nan")


def sustains(lab: Lab, replica: Child, rate: float, seconds: float) -> bool:
    """Whether everything at this rate becomes readable in time, and the publisher itself keeps it."""
    lab.publish(rate, 1.0, ROWS_A_CALL)
    drain(replica, timeout_s=120)
    given = lab.publish(rate, seconds, ROWS_A_CALL)
    readable = drain(replica, quiet_s=0.5, timeout_s=120)
    p50, p99 = readable.percentile(50), readable.percentile(99)
    say(
        f"{given:,.0f} of {rate:,.0f} row updates/s for {seconds:.0f} s: p50 {p50:.0f}, p99 {p99:.0f} ms; "
        f"the lanes carried {readable.rows / seconds:,.0f} rows/s"
    )
    return given > 0.97 * rate and p99 <= BOUND_MS
