"""kill -9 at any moment: what reopens is, bit for bit, what the operations up to its stored position make."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ekko.storage.disk.checking import check_folder
from ekko.storage.store import Store
from tests.storage.crash_stream import MEMORY_BYTES, MODEL, Reference, epoch_of, position_of


def kill_once(folder: Path, flushes: int, seconds: float) -> str:
    """Run the process, kill it some time after it has begun so many flushes; the last it said."""
    command = [sys.executable, "-m", "tests.storage.crashing_process", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("open")
        while flushes:
            said = process.stdout.readline()
            assert said, "it ended by itself"
            flushes -= said == "flushing\n"
        time.sleep(seconds)
        process.kill()
        last = process.stdout.read().split("\n")
    return last[-2] if len(last) > 1 else "flushing"


def compare(folder: Path, reference: Reference) -> int:
    """Reopen and compare every state there is; the position reached."""
    store = Store.open(folder, MODEL, [0], region_incarnation=1, memory_bytes=MEMORY_BYTES)
    reference.advance(position_of(store.state))
    assert store.checksum("rows") == reference.checksum()
    for state in range(store.bound, epoch_of(reference.position) + 3):  # all there are, and two to come
        assert store.checksum("rows", state) == reference.checksum(state), state
    store.close()
    return reference.position


def kill_often(folder: Path, kills: int, seed: int) -> Counter[str]:
    moments: Counter[str] = Counter()
    reference, dice = Reference(), random.Random(seed)
    for _ in range(kills):
        moments[kill_once(folder, dice.randint(1, 5), dice.uniform(0, 0.2))] += 1
        before = reference.position
        assert compare(folder, reference) >= before
    assert check_folder(folder).tables[0].rows
    return moments


def test_five_kills(tmp_path: Path) -> None:
    moments = kill_often(tmp_path / "store", 5, seed=1)
    assert sum(moments.values()) == 5


@pytest.mark.chaos
def test_fifty_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moments = kill_often(tmp_path / "store", 50, seed=2)
    with capsys.disabled():
        sys.stdout.write(f"\nkilled: {dict(moments)}\n")
    assert moments["flushing"] >= 5
