"""Imports and exports that are killed, or in whose middle the model is rolled back: exact after all, or a plain no."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.blocks import Purpose
from ekko.schemas.declarations import TableDeclaration
from ekko.streams.kafka import KafkaCluster
from ekko.streams.publisher import Publisher
from tests.ops.deployment import EKKO, Deployment
from tests.ops.source_tail import SourceTail

DIM = 64
COUNT = 100_000
KEYS = np.arange(COUNT, dtype=np.uint64)
ROWS = np.random.default_rng(2).integers(-(2**23), 2**23, (COUNT, DIM)).astype(np.int32)
VALUES = (ROWS * 2.0**-24).astype(np.float32)  # whole steps, which no rounding changes
SPOOLED = 4_000_000
"""Bytes of an export that have come when it is stopped: far from all, more than sockets hold."""
MOST_SPOOLED = COUNT * (8 + 4 * DIM) // 2
"""So much is still not all, whatever sockets hold."""


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


def start(deployment: Deployment, *arguments: str) -> subprocess.Popen[str]:
    command = [*EKKO, *arguments, "--bootstrap", deployment.bootstrap]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def exporting(deployment: Deployment, out: Path, *flags: str) -> subprocess.Popen[str]:
    address = deployment.addresses[deployment.regions[0]]
    return start(deployment, "export", deployment.model.name, "--store", address, "--out", str(out), *flags)


def reach(process: subprocess.Popen[str], condition: Callable[[], bool]) -> bool:
    """Wait for a moment in a process's life; false if it ended before."""
    deadline = time.monotonic() + 60
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
    return True


def spooled(process: subprocess.Popen[str]) -> int:
    """Bytes in files of a process that have no name."""
    total = 0
    with suppress(OSError):  # it has ended meanwhile
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                total += link.stat().st_size if str(link.readlink()).endswith("(deleted)") else 0
    return total


def stopped_in_the_middle(deployment: Deployment, name: str, *flags: str) -> tuple[subprocess.Popen[str], Path]:
    """An export that holds a part of the reply and stands still, and its folder.

    On a busy machine one may have ended before it is looked at.
    """
    for attempt in range(10):
        out = deployment.folder / f"{name}-{attempt}"
        process = exporting(deployment, out, *flags)
        if reach(process, lambda process=process: spooled(process) > SPOOLED):
            process.send_signal(signal.SIGSTOP)
            if spooled(process) < MOST_SPOOLED:
                return process, out
        kill(process)
    raise AssertionError("each export had all of the reply before it could be stopped")


def check_file(path: Path) -> None:
    with np.load(path) as arrays:
        order = np.argsort(arrays["keys"])
        assert np.array_equal(arrays["keys"][order], KEYS)
        assert np.array_equal(arrays["rows"][order], ROWS)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.timeout(240)
def test_an_export_killed_leaves_no_file_and_is_made_again(deployment: Deployment) -> None:
    publish(deployment, 0, COUNT)
    process, out = stopped_in_the_middle(deployment, "out")
    kill(process)
    assert list(out.iterdir()) == []

    draft, caught = out / "embedding.npz.partial", False
    for _ in range(10):  # it takes a few milliseconds to write
        process = exporting(deployment, out)
        caught = reach(process, draft.exists)
        kill(process)
        if caught and draft.exists():
            break
    assert caught
    assert not (out / "embedding.npz").exists(), "whole or not at all"

    process = exporting(deployment, out)
    said, trouble = process.communicate(timeout=60)
    assert process.returncode == 0, trouble
    assert f": {COUNT} rows" in said
    check_file(out / "embedding.npz")
    assert [path.name for path in out.iterdir()] == ["embedding.npz"]


@pytest.mark.timeout(240)
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
    said, trouble = exports[kept].communicate(timeout=60)
    assert exports[kept].returncode == 0, trouble
    check_file(folders[kept] / "embedding.npz")
    said, trouble = exports[lost].communicate(timeout=60)
    assert exports[lost].returncode == 1, said
    assert "rollback" in trouble
    assert list(folders[lost].iterdir()) == []


@pytest.mark.timeout(240)
@pytest.mark.parametrize("replace", [False, True], ids=["empty", "replace"])
def test_an_import_in_whose_middle_the_model_is_rolled_back_says_so_and_can_be_run_again(
    deployment: Deployment, replace: bool
) -> None:
    file = deployment.folder / "embedding.npz"
    np.savez(file, keys=KEYS, values=VALUES)
    state = publish(deployment, 0, 10) if replace else deployment.wait_healthy()
    model = deployment.model
    command = ["import", model.name, str(file), *(("--replace", "--region", deployment.regions[0]) if replace else ())]
    with SourceTail(deployment.kafka, topics.deltas(model.name)) as tail:
        process = start(deployment, *command)
        tail.await_blocks(2 * model.shards, lambda block: block.purpose is Purpose.IMPORT and len(block.keys) > 0)
        process.send_signal(signal.SIGSTOP)  # a block a shard and chunk: far from all of them
    deployment.ekko("rollback", model.name, "--to", str(state), "--reason", "test")
    process.send_signal(signal.SIGCONT)
    said, trouble = process.communicate(timeout=90)
    assert process.returncode == 1, said
    assert "was rolled back while" in trouble
    deployment.ekko(*command)
    deployment.wait_exact("all rows are there")
    with deployment.client(deployment.regions[0]) as client:
        assert np.array_equal(client.stored("embedding", KEYS).rows, ROWS)
