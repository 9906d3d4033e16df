"""Run seeds: `python -m tests.simulation --seeds 1000`, or one of them again: `... --seed 17`."""

import argparse
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.world import simulate

SECONDS_A_SEED = 300
_HASH_SEED = "0"
"""Sets must iterate alike in every run, or a seed would not replay."""


def replay_command(seed: int) -> str:
    """The command that runs one seed again."""
    return f"python -m tests.simulation --seed {seed}"


def attempt(seed: int) -> str | None:
    """Run one seed; what went wrong, if anything."""
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(SECONDS_A_SEED)
    try:
        simulate(seed)
    except Exception:  # noqa: BLE001 - whatever a seed raises is its finding
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return None


def _give_up(number: int, frame: object) -> None:
    del number, frame
    raise TimeoutError(f"the seed takes more than {SECONDS_A_SEED} s: something waits for ever")


def failures(seeds: range, workers: int) -> Iterator[tuple[int, str]]:
    """Failing seeds with what went wrong, as they come."""
    with ProcessPoolExecutor(workers) as pool:
        for seed, failure in zip(seeds, pool.map(attempt, seeds, chunksize=4), strict=True):
            if failure is not None:
                yield seed, failure


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="only this one, with a trace of what happens")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        simulate(arguments.seed, trace=lambda line: print(line, flush=True))
        print(f"all laws held for seed {arguments.seed}")
        return 0
    started_s = time.perf_counter()
    failed = 0
    for seed, failure in failures(range(arguments.first, arguments.first + arguments.seeds), arguments.workers):
        failed += 1
        print(f"seed {seed} failed:\n{failure}\nreplay: {replay_command(seed)}\n", flush=True)
    took_s = time.perf_counter() - started_s
    verdict = "all laws held" if not failed else f"{failed} failed"
    print(f"{arguments.seeds} seeds in {took_s:.1f} s ({arguments.seeds / took_s:.1f} a second): {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != _HASH_SEED:
        os.environ["PYTHONHASHSEED"] = _HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])  # noqa: S606 - no shell
    sys.exit(main())
