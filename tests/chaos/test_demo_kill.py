"""kill -9 of a store, of a fan-out and of the broker in the middle of the demo changes nothing of its end result."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

EKKO = (sys.executable, "-c", "from ekko.ops.cli import main; main()")
START_TIMEOUT_S = 90.0


class Demo:
    """A demo in a process of its own."""

    def __init__(self, folder: Path, seconds: float, *options: str) -> None:
        self.folder = folder
        self.seconds = seconds
        command = [*EKKO, "demo", "--seconds", str(seconds), "--headless", "--folder", str(folder), *options]
        self._output = folder.with_name("demo.out")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def await_training(self) -> None:
        """Return once the trainer has learnt something."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.folder / "trainer.json").exists():
            assert self.process.poll() is None, self._output.read_text()
            assert time.monotonic() < deadline, f"no training after {START_TIMEOUT_S} s"
            time.sleep(0.1)

    def pid(self, name: str) -> int:
        """Process id of one of its processes; the broker's is that of Kafka itself."""
        if name == "broker":
            return int(json.loads((self.folder / "broker" / "broker.json").read_text())["pid"])
        return int(json.loads((self.folder / "processes.json").read_text())[name])

    def kill(self, name: str) -> None:
        """Send SIGKILL."""
        os.kill(self.pid(name), signal.SIGKILL)

    def result(self) -> tuple[int, dict[str, Any], str]:
        """Exit code, the object of the last line, and all output."""
        self.process.wait(self.seconds + 240)
        output = self._output.read_text()
        try:
            summary = json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            pytest.fail(f"no JSON in the last line; exit code {self.process.returncode}\n{output}")
        return self.process.returncode, summary, output


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start(seconds: float, *options: str) -> Demo:
        started.append(Demo(tmp_path / "demo", seconds, *options))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.wait()


def assert_sound(summary: dict[str, Any], output: str) -> None:
    assert summary["bit_identical"], output
    assert summary["problems"] == []
    assert summary["rows_published"] > 0
    assert summary["rollbacks"] == 0, "a kill is no reason to take learning back"


def processes_in(folder: Path) -> list[psutil.Process]:
    """Processes that were started for this folder and live."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        named = any(str(folder) in word for word in process.info["cmdline"] or [])
        if named and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@pytest.mark.timeout(400)
def test_a_short_demo_survives_kills_and_leaves_nobody_behind(demo: Callable[..., Demo]):
    run = demo(20)
    run.await_training()
    for name in ("store-east", "fanout-west", "broker"):
        time.sleep(3)
        run.kill(name)
    code, summary, output = run.result()
    assert code == 0, output
    assert_sound(summary, output)
    assert summary["restarts"]["store-east"] >= 1
    assert summary["restarts"]["fanout-west"] >= 1
    assert summary["restarts"]["broker"] >= 1
    assert processes_in(run.folder) == []


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_every_process_is_killed_more_than_once(demo: Callable[..., Demo]):
    victims = ("store-east", "store-west", "fanout-east", "fanout-west", "broker", "manager", "monitor", "trainer")
    run = demo(120)
    run.await_training()
    for name in victims * 2:
        time.sleep(5)
        run.kill(name)
    code, summary, output = run.result()
    assert code == 0, output
    assert_sound(summary, output)
    assert all(summary["restarts"][name] >= 2 for name in victims)
    assert summary["auc_live"] > summary["auc_stale"], "in 20 s with a killed broker there is no time to show it"


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_a_trainer_that_goes_bad_is_found_out_and_undone(demo: Callable[..., Demo]):
    code, summary, output = demo(60, "--poison").result()
    assert code == 0, output
    assert summary["bit_identical"], output
    assert summary["poisoned"]
    assert summary["rollbacks"] == 1
    assert 0 < summary["detection_s"] < 30
    assert summary["auc_poisoned"] < min(summary["auc_before_poison"], summary["auc_recovered"])


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_a_killed_demo_takes_its_processes_with_it(demo: Callable[..., Demo]):
    run = demo(60)
    run.await_training()
    assert len(processes_in(run.folder)) > 5
    run.process.kill()
    deadline = time.monotonic() + 30
    while processes_in(run.folder):
        assert time.monotonic() < deadline, processes_in(run.folder)
        time.sleep(0.2)
