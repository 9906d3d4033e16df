"""A demo that has ended leaves no Java behind, even if the command that watches over it was killed at the end."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil

from ekko.ops.broker import ports
from ekko.ops.broker.folder import DataFolder
from ekko.ops.demo import processes
from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.run import make_plan
from ekko.ops.demo.supervisor import Supervisor
from ekko.ops.demo.synthetic import SyntheticShape, synthetic_interactions

STREAM = synthetic_interactions(1, SyntheticShape(interactions=200, users=20, items=20, periods=2))
TIMEOUT_S = 120.0


def living(plan: DemoPlan) -> int | None:
    return DataFolder(plan.folder / "broker").living_pid()


def java_of(plan: DemoPlan) -> psutil.Process:
    """The broker's Java, as soon as there is one."""
    deadline = time.monotonic() + TIMEOUT_S
    while (pid := living(plan)) is None:
        assert time.monotonic() < deadline, "no broker was started"
        time.sleep(0.02)
    return psutil.Process(pid)


def await_ready(plan: DemoPlan) -> None:
    host, _, port = plan.bootstrap.rpartition(":")
    deadline = time.monotonic() + TIMEOUT_S
    while not ports.accepts(host, int(port)):
        assert time.monotonic() < deadline, "the broker does not accept connections"
        time.sleep(0.02)


def test_the_broker_is_gone_after_its_command_was_killed(tmp_path: Path):
    plan = make_plan(tmp_path, STREAM, seconds=10)
    with processes.broker_gone(plan):
        with Supervisor(plan.folder) as supervisor:
            supervisor.start(processes.broker(plan))
            await_ready(plan)
            java = java_of(plan)
            java.suspend()  # it takes long to stop
            supervisor.stop("broker", timeout_s=0.0)  # SIGKILL at once: the Java is its watcher's now
        assert living(plan) == java.pid
        threading.Timer(0.5, java.resume).start()
    assert living(plan) is None


def test_a_broker_that_still_starts_is_stopped_with_the_rest(tmp_path: Path):
    plan = make_plan(tmp_path, STREAM, seconds=10)
    with processes.broker_gone(plan), Supervisor(plan.folder) as supervisor:
        supervisor.start(processes.broker(plan))
        os.kill(java_of(plan).pid, signal.SIGKILL)
        deadline = time.monotonic() + TIMEOUT_S
        while not supervisor.restarts()["broker"]:
            assert time.monotonic() < deadline, "the broker was not started again"
            time.sleep(0.02)
        java_of(plan)
    assert living(plan) is None
