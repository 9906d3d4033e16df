"""The fan-out measured: `make bench-fanout` or `python -m tests.bench.fanout [--part a] [--pairs 7] [--seconds 10]`.

(a) update latency, publish -> readable at a replica with its store on disk, idle and at 50 % and 80 % of the peak;
(b) one link at 1/40 of what its region needs (`tests.bench.wan`); (c) bandwidth cut by 92 % with k = 99: freshness,
bytes, online AUC on the seeded drift stream; (d) bytes with coalescing under a tenfold cut against the plain log. The
last line is one JSON object.
"""

import argparse
import json
import os
import platform

from tests.bench import wan
from tests.bench.fanout_cut import Load, auc_under_cut, cut
from tests.bench.fanout_lab import say
from tests.bench.fanout_latency import latencies
from tests.bench.load import DIM, KEYS, ZIPF

STREAMS = {"wide_cut92_": f"Zipf({ZIPF}) over {KEYS:,} keys", "cut92_": "seeded drift stream"}
"""Of which load the figures are whose names begin so; `coalescing_bytes_ratio` and `auc_uncut` are of the latter."""


def main() -> None:
    """Run all parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("a", "b", "c"), action="append", help="only this one; (d) comes with c")
    parser.add_argument("--pairs", type=int, default=7, help="interleaved pairs of part (b)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--peak-seconds", type=float, default=30.0, help="for which the peak must be kept")
    parser.add_argument("--rate", type=float, default=20_000, help="rows a second of parts (c) and (d)")
    arguments = parser.parse_args()
    parts = arguments.part or ["a", "b", "c"]
    cores, load = os.cpu_count(), os.getloadavg()[0]
    say(f"{platform.platform()}, {cores} cores, load {load:.1f}; dim {DIM}, Zipf({ZIPF}) over {KEYS:,} keys, acks=all")
    figures: dict[str, float] = {}
    if "a" in parts:
        figures |= latencies(arguments.seconds, arguments.peak_seconds)
    if "b" in parts:
        figures |= wan.run(arguments.pairs)
    if "c" in parts:
        wide = cut(Load("wide", arguments.rate, arguments.seconds, 1_000))
        figures |= {f"wide_{name}": value for name, value in wide.items()}
        figures |= cut(Load("drift", arguments.rate, arguments.seconds, 1_000))
        # About 1,600 interactions a second: faster, two seconds would be an age of the stream, which would come round.
        figures |= auc_under_cut(Load("drift", 0.075 * arguments.rate, 2 * arguments.seconds, 1_000))
    streams = {f"{name}stream": stream for name, stream in STREAMS.items() if "c" in parts}
    say(json.dumps(streams | {name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
