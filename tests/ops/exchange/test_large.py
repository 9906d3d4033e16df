"""1 M rows of 64: a round trip in bounded memory (`pytest -m bench tests/ops/exchange`)."""

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

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
        [sys.executable, "-X", "faulthandler", "-c", MEASURED, *arguments],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    megabytes = json.loads(done.stderr.splitlines()[-1])["mb"]
    sys.stdout.write(f"{what}: {time.monotonic() - begun:.1f} s, {megabytes} MB at most\n{done.stdout}")
    return done.stdout, megabytes


def save(path: Path, values: NDArray[np.float32]) -> None:
    """As a trainer leaves it: one array without keys, or in Parquet one column in a single row group."""
    if path.suffix == ".npz":
        np.savez(path, values=values)
    elif path.suffix == ".safetensors":
        tensor = {"dtype": "F32", "shape": values.shape, "data_offsets": [0, values.nbytes]}
        header = json.dumps({"values": tensor}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    else:
        rows = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIM)
        pq.write_table(pa.table({"values": rows}), path, row_group_size=COUNT)


@pytest.mark.bench
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["npz", "safetensors", "parquet"])
def test_a_million_rows_go_round_in_bounded_memory(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path, form: str
) -> None:
    table = TableDeclaration("embedding", DIM, initializer="uniform", scale=0.01, seed=7)
    given, exported = tmp_path / f"embedding.{form}", tmp_path / "out" / f"embedding.{form}"
    save(given, np.random.default_rng(1).normal(0, 0.1, (COUNT, DIM)).astype(np.float32))
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as deployment:
        address = deployment.addresses[deployment.regions[0]]
        target = ("--bootstrap", broker.bootstrap)
        _, megabytes = run("import", "import", deployment.model.name, str(given), *target)
        assert megabytes < LIMIT_MB
        deployment.wait_exact("every row is there")
        deployment.wait_healthy()
        export = ("export", deployment.model.name, "--store", address, "--out", str(exported.parent), "--format", form)
        said, megabytes = run("export", *export)
        assert f": {COUNT} rows" in said
        assert megabytes < LIMIT_MB
        again = ("--replace", "--region", deployment.regions[0], *target)
        said, megabytes = run("replace", "import", deployment.model.name, str(exported), *again)
        assert "nothing is left" in said, "the export says what is there, bit for bit"
        assert megabytes < LIMIT_MB
