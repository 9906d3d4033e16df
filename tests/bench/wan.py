"""One region behind a link of 1/40 of what it needs: `python -m tests.bench.wan [--pairs 7]`.

The paper's table: update latency of all regions, with and without the thin link, interleaved; and for the region behind
it, with priority lanes and coalescing, and with everything express (that is the plain log).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.fanout_lab import Child, Lab, Readable, end, take

FAST, SLOW = ("east", "west"), "slow"
ROWS_A_CALL, RATE, SECONDS = 200, 4_000, 4.0


def others_ratio(
    lab: Lab, fast: list[Child], link_bytes_s: float, pairs: int
) -> tuple[float, list[tuple[float, float]]]:
    """Median over the pairs of (p99 of the fast regions with the thin link) / (without); and the pairs in ms."""
    found = []
    for _ in range(pairs):
        pair = []
        for limit in (0.0, link_bytes_s):
            lab.link.limit(limit)
            lab.publish(RATE, 1.0, ROWS_A_CALL)
            for replica in fast:
                take(replica)
            lab.publish(RATE, SECONDS, ROWS_A_CALL)
            time.sleep(0.3)
            pair.append(max(take(replica).percentile(99) for replica in fast))
        found.append((pair[0], pair[1]))
    lab.link.limit(0)
    return statistics.median(thin / free for free, thin in found), found


def link_use(lab: Lab) -> float:
    """Bytes a second that cross the link unlimited, towards the region."""
    before, began = lab.link.carried().up, time.monotonic()
    lab.publish(RATE, SECONDS, ROWS_A_CALL)
    return (lab.link.carried().up - before) / (time.monotonic() - began)


def behind_the_link(lab: Lab, link_bytes_s: float, **settings: object) -> Readable:
    """What becomes readable behind the thin link while the load goes on for ten seconds."""
    fanout = lab.fanout(SLOW, **settings)
    replica = lab.replica(SLOW)
    lab.caught_up(SLOW)
    lab.publish(RATE, 2.0, ROWS_A_CALL)
    lab.link.limit(link_bytes_s)
    take(replica)
    lab.publish(RATE, 10.0, ROWS_A_CALL)
    found = take(replica)
    lab.link.limit(0)
    end(fanout)
    replica.close()
    return found


def run(pairs: int) -> dict[str, float]:
    """All of it; prints as it goes."""
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder), [*FAST, SLOW], slow=SLOW) as lab:
        for region in FAST:
            lab.fanout(region)
        slow = lab.fanout(SLOW)
        fast = [lab.replica(region) for region in FAST]
        lab.publish(RATE, 4.0, ROWS_A_CALL)
        thin = link_use(lab) / 40
        ratio, found = others_ratio(lab, fast, thin, pairs)
        for free, limited in found:
            sys.stdout.write(f"others' p99: {free:7.1f} ms with all links free, {limited:7.1f} ms beside a thin one\n")
        sys.stdout.write(f"median ratio {ratio:.2f}; the thin link carries {thin:,.0f} bytes/s\n")
        lab.caught_up(SLOW)  # or what waits still would be the first thing that the next one has to send
        end(slow)
        lanes = behind_the_link(lab, thin, bandwidth_bytes_per_s=thin, express_percentile=99.0)
        plain = behind_the_link(lab, thin, express_percentile=0.0)
        for name, readable in (("lanes, coalescing", lanes), ("plain log", plain)):
            express = Readable(0, readable.express, [])
            sys.stdout.write(
                f"behind the thin link, {name}: {readable.rows:,} rows; express p50 {express.percentile(50):.0f} ms, "
                f"p99 {express.percentile(99):.0f} ms; all p99 {readable.percentile(99):.0f} ms\n"
            )
    return {
        "slow_region_ratio_others": ratio,
        "thin_express_p99_ms": Readable(0, lanes.express, []).percentile(99),
        "thin_plain_p99_ms": plain.percentile(99),
    }


def main() -> None:
    """Print the table, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    sys.stdout.write(json.dumps(run(parser.parse_args().pairs)) + "\n")


if __name__ == "__main__":
    main()
