"""Imports and exports that are killed, or in whose middle the model is rolled back: exact after all, or a plain no."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import Deployment
from tests.ops.interrupted import CHUNK, await_killed, await_stopped, interrupted

DIM = 64
COUNT = 100_000
KEYS = np.arange(COUNT, dtype=np.uint64)
ROWS = np.random.default_rng(2).integers(-(2**23), 2**23, (COUNT, DIM)).astype(np.int32)
VALUES = (ROWS * 2.0**-24).astype(np.float32)  # whole steps, which no rounding changes
SPOOLED = "ekko.ops.exchange.spool:Spool.add"
"""A frame of the reply has come, 4 MB at most of 26: what is left is more than sockets hold."""
WRITTEN = "ekko.ops.exchange.spool._copy"
"""A column of the file is written: the keys, and then the rows."""


@pytest.fixture
def deployment(kafka: KafkaCluster, broker: Broker, topic_prefix: str, tmp_path: Path) -> Iterator[Deployment]:
    table = TableDeclaration("embedding", DIM)
    with Deployment(kafka, broker.bootstrap, topic_prefix, tmp_path, table=table, regions=1) as running:
        yield running


def publish(deployment: Deployment, start: int, stop: int) -> int:
    """Some rows; a healthy state that holds them."""
    with Publisher(deployment.model.name, cluster=deployment.kafka, trainer="t") as publisher:
        publisher.publish("embedding", KEYS[start:stop], VALUES[start:stop])
    deployment.wait_exact("the rows are there")
    return deployment.wait_healthy()


def export(deployment: Deployment, out: Path) -> list[str]:
    """The command; it takes no `--bootstrap`, but does not mind one."""
    address = deployment.addresses[deployment.regions[0]]
    return ["export", deployment.model.name, "--store", address, "--out", str(out)]


def stopped_in_the_middle(deployment: Deployment, name: str, *flags: str) -> tuple[subprocess.Popen[str], Path]:
    """An export that holds a part of the reply and stands still, and its folder."""
    out = deployment.folder / name
    process = interrupted(signal.SIGSTOP, SPOOLED, 1, *export(deployment, out), *flags)
    await_stopped(process)
    return process, out


def check_file(path: Path) -> None:
    with np.load(path) as arrays:
        order = np.argsort(arrays["keys"])
        assert np.array_equal(arrays["keys"][order], KEYS)
        assert np.array_equal(arrays["rows"][order], ROWS)


def test_an_export_killed_leaves_no_file_and_is_made_again(deployment: Deployment) -> None:
    publish(deployment, 0, COUNT)
    process, out = stopped_in_the_middle(deployment, "out")
    process.kill()
    process.communicate()
    assert list(out.iterdir()) == []

    await_killed(interrupted(signal.SIGKILL, WRITTEN, 1, *export(deployment, out)))
    assert [path.name for path in out.iterdir()] == ["embedding.npz.partial"], "whole or not at all"

    assert f": {COUNT} rows" in deployment.ekko(*export(deployment, out)).stdout
    check_file(out / "embedding.npz")
    assert [path.name for path in out.iterdir()] == ["embedding.npz"]


def test_an_export_in_whose_middle_the_model_is_rolled_back_mixes_no_states(deployment: Deployment) -> None:
    kept = publish(deployment, 0, COUNT)
    lost = publish(deployment, 0, 1_000)  # changes rows that come first
    exports, folders = {}, {}
    for state in (kept, lost):
        exports[state], folders[state] = stopped_in_the_middle(deployment, str(state), "--as-of", str(state))
    # Both hold half a reply: neither the rollback nor the rows may wait for them.
    deployment.ekko("rollback", deployment.model.name, "--to", str(kept), "--reason", "test")
    for process in exports.values():
        process.send_signal(signal.SIGCONT)
    said, trouble = exports[kept].communicate(timeout=180)
    assert exports[kept].returncode == 0, trouble
    check_file(folders[kept] / "embedding.npz")
    said, trouble = exports[lost].communicate(timeout=180)
    assert exports[lost].returncode == 1, said
    assert "rollback" in trouble
    assert list(folders[lost].iterdir()) == []


@pytest.mark.parametrize("replace", [False, True], ids=["empty", "replace"])
def test_an_import_in_whose_middle_the_model_is_rolled_back_says_so_and_can_be_run_again(
    deployment: Deployment, replace: bool
) -> None:
    file = deployment.folder / "embedding.npz"
    np.savez(file, keys=KEYS, values=VALUES)
    state = publish(deployment, 0, 10) if replace else deployment.wait_healthy()
    model = deployment.model
    command = ["import", model.name, str(file), *(("--replace", "--region", deployment.regions[0]) if replace else ())]
    process = interrupted(signal.SIGSTOP, CHUNK, 2, *command, "--bootstrap", deployment.bootstrap)  # of about ten
    await_stopped(process)
    deployment.ekko("rollback", model.name, "--to", str(state), "--reason", "test")
    process.send_signal(signal.SIGCONT)
    said, trouble = process.communicate(timeout=180)
    assert process.returncode == 1, said
    assert "was rolled back while" in trouble
    deployment.ekko(*command)
    deployment.wait_exact("all rows are there")
    with deployment.client(deployment.regions[0]) as client:
        assert np.array_equal(client.stored("embedding", KEYS).rows, ROWS)
