"""A simulation that never gets into trouble proves nothing: the first seeds reach every place that it is made for.

All laws are checked in them, as in every world, so `test_simulation` goes on after them.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.simulation.reach import MOMENTS, PLACES, TOLD

SEEDS = 25


@pytest.mark.timeout(1200)
def test_the_first_seeds_reach_every_place() -> None:
    command = [sys.executable, "-m", "tests.simulation.reach", str(SEEDS)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1100, check=False)
    assert run.returncode == 0, run.stderr
    reached = json.loads(run.stdout)
    assert len(reached) == len(PLACES) + len(TOLD) + len(MOMENTS)
    assert all(reached.values()), f"never in {SEEDS} seeds: {[what for what, count in reached.items() if not count]}"
