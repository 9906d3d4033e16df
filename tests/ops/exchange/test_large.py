"""1 M rows of 64: a round trip in bounded memory (`pytest -m bench tests/ops/exchange`)."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.kafka import KafkaCluster
from tests.ops.deployment import Deployment

COUNT, DIM = 1_000_000, 64
LIMIT_MB = 200
"""The table is 264 MB; what grows with it is 8 bytes a row (while sorted: twice), to find keys that are there twice."""

MEASURED = """
import json, re, sys
from pathlib import Path
from ekko.ops.cli import build
try:
    build()()
finally:
    kilobytes = re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]
    print(json.dumps({"mb": int(kilobytes) // 1024}), file=sys.stderr)
"""
"""Not `ru_maxrss`, which a child inherits from the process that starts it."""


def run(what: str, *arguments: str) -> tuple[str, float]:
    """What a command says, and the megabytes it took."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    megabytes = json.loads(done.stderr.splitlines()[-1])["mb"]
    sys.stdout.write(f"{what}: {time.monotonic() - begun:.1f} s, {megabytes} MB at most\n{done.stdout}")
    return done.stdout, megabytes


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_million_rows_go_round_in_bounded_memory(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    table = TableDeclaration("embedding", DIM, initializer="uniform", scale=0.01, seed=7)
    values = np.random.default_rng(1).normal(0, 0.1, (COUNT, DIM)).astype(np.float32)
    np.savez(tmp_path / "embedding.npz", values=values)
    del values
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as deployment:
        address = deployment.addresses[deployment.regions[0]]
        target = ("--bootstrap", broker.bootstrap)
        _, megabytes = run("import", "import", deployment.model.name, str(tmp_path / "embedding.npz"), *target)
        assert megabytes < LIMIT_MB
        deployment.wait_exact("every row is there")
        deployment.wait_healthy()
        export = ("export", deployment.model.name, "--store", address, "--out", str(tmp_path / "out"))
        said, megabytes = run("export", *export)
        assert f": {COUNT} rows" in said
        assert megabytes < LIMIT_MB
        again = ("--replace", "--region", deployment.regions[0], *target)
        said, megabytes = run(
            "replace", "import", deployment.model.name, str(tmp_path / "out" / "embedding.npz"), *again
        )
        assert "nothing is left" in said, "the export says what is there, bit for bit"
        assert megabytes < LIMIT_MB
