"""A parent that is killed leaves no process behind, at whatever moment (kill -9 of `ekko broker` while it starts)."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ekko.ops.broker.folder import DataFolder
from ekko.ops.watcher import dismiss, start_watched
from tests.waiting import PATIENCE_S

TIMEOUT_S = PATIENCE_S
KILLED_AFTER = """
import os, subprocess, sys
from pathlib import Path
from ekko.ops import watcher
started, left = subprocess.Popen, [{number}]
def start(*given, **named):
    process = started(*given, **named)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
    return process
subprocess.Popen = start
with open(sys.argv[1], "wb") as output:
    watcher.start_watched([sys.executable, "-c", "import time; time.sleep(900)", sys.argv[1]], output)
"""
START = (
    "import sys; from pathlib import Path; from ekko.ops.broker import Broker; print(1); Broker(Path({data!r})).start()"
)


def living(mark: str) -> list[psutil.Process]:
    """Processes that have this word on their command line."""
    found = psutil.process_iter(["cmdline", "status"])
    return [p for p in found if mark in (p.info["cmdline"] or []) and p.info["status"] != psutil.STATUS_ZOMBIE]


def await_none(mark: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while found := living(mark):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def await_some(mark: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not living(mark):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "output"
    for left in living(str(tmp_path / "output")):
        left.kill()


@pytest.mark.parametrize("number", [1, 2], ids=["with a watcher alone", "not knowing the child's pid yet"])
def test_a_parent_killed_between_the_two_starts_leaves_nothing(log: Path, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER.format(number=number), str(log)], check=False, timeout=180
    )
    assert done.returncode == -signal.SIGKILL
    await_none(str(log))


def test_the_child_is_the_program_itself_with_its_own_folder_and_variables(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getpid(), os.getcwd(), os.environ['NAME'], sys.stdin.read(), flush=True)"
    with (tmp_path / "output").open("wb") as output:
        process, watcher = start_watched(
            [sys.executable, "-c", program], output, folder=tmp_path, environment={"NAME": "it's $HOME"}
        )
    assert process.wait(TIMEOUT_S) == 0
    assert (tmp_path / "output").read_text().rstrip() == f"{process.pid} {tmp_path} it's $HOME"
    assert watcher.poll() is None
    dismiss(watcher)
    assert watcher.returncode == -signal.SIGKILL


def test_a_command_that_does_not_exist_says_so_in_the_output(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        process, watcher = start_watched(["/no/such/java"], output)
    assert process.wait(TIMEOUT_S) == 127
    dismiss(watcher)
    assert "/no/such/java" in (tmp_path / "output").read_text()


def kill_starting_broker(data: Path, moment: Callable[[], object]) -> None:
    """Kill the process that starts a broker at some moment after it has begun; nothing of it may be left."""
    with subprocess.Popen([sys.executable, "-uc", START.format(data=str(data))], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"1\n"
        moment()
        parent.kill()
    await_none(str(DataFolder(data).properties))


def test_a_broker_killed_in_the_first_moments_leaves_no_java(tmp_path: Path) -> None:
    """Thirty kills within 300 ms from the start, most before there is a Java on a busy machine; five just after it."""
    dice, data = random.Random(7), tmp_path / "data"
    for _ in range(30):
        kill_starting_broker(data, lambda: time.sleep(dice.uniform(0.0, 0.3)))
    for _ in range(5):
        kill_starting_broker(data, lambda: await_some(str(DataFolder(data).properties)))
