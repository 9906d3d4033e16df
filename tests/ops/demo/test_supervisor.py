"""Processes are started, restarted after kill -9, stopped, and never left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ekko.ops.demo import child as child_module
from ekko.ops.demo import supervisor as supervisor_module
from ekko.ops.demo.child import Child, ChildSpec, ProcessFailed
from ekko.ops.demo.supervisor import Supervisor
from tests.waiting import PATIENCE_S

SLEEPER = ChildSpec("sleeper", (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(900)"))


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def pid_of(folder: Path, name: str) -> int | None:
    pid: int | None = json.loads((folder / "processes.json").read_text())[name]
    return pid


def test_a_killed_process_comes_back_and_is_counted(tmp_path: Path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(SLEEPER)
        first = pid_of(tmp_path, "sleeper")
        assert first is not None
        wait_until((tmp_path / "logs" / "sleeper.log").read_text)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: pid_of(tmp_path, "sleeper") not in (None, first))
        assert supervisor.restarts() == {"sleeper": 1}
        second = pid_of(tmp_path, "sleeper")
        assert second is not None
    assert not psutil.pid_exists(second)
    assert (tmp_path / "logs" / "sleeper.log").read_text().startswith("up\n")


def test_a_process_whose_work_is_done_is_left_in_peace(tmp_path: Path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(ChildSpec("worker", (sys.executable, "-c", "pass"), ends=True))
        wait_until(lambda: not supervisor.running("worker"))
        assert supervisor.restarts() == {"worker": 0}


def test_a_stopped_process_stays_stopped(tmp_path: Path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(SLEEPER)
        supervisor.stop("sleeper")
        supervisor.start(ChildSpec("later", (sys.executable, "-c", "")))
        wait_until(lambda: supervisor.restarts()["later"] > 1)  # it has looked after all of them, more than once
        assert supervisor.restarts()["sleeper"] == 0


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path):
    program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(900)"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(ChildSpec("stubborn", (sys.executable, "-c", program)))
        wait_until((tmp_path / "logs" / "stubborn.log").read_text)
        pid = pid_of(tmp_path, "stubborn")
        assert pid is not None
        supervisor.stop("stubborn", timeout_s=0.2)
        assert not psutil.pid_exists(pid)


def test_one_with_processes_of_its_own_may_stop_them_though_others_took_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A broker's command that is killed in its turn, because the monitor was slow, leaves its Java behind."""
    monkeypatch.setattr(supervisor_module, "STOP_TIMEOUT_S", 0.2)
    orderly = """
import signal, sys, time
def end(*_):
    time.sleep(1)
    print("stopped in good order", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(900)
"""
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(900)"
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(ChildSpec("orderly", (sys.executable, "-c", orderly), stop_s=120.0))
        supervisor.start(ChildSpec("stubborn", (sys.executable, "-c", stubborn)))
        for name in ("orderly", "stubborn"):
            wait_until((tmp_path / "logs" / f"{name}.log").read_text)
    assert (tmp_path / "logs" / "orderly.log").read_text() == "up\nstopped in good order\n"


def test_one_that_keeps_dying_ends_the_demo_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child_module, "GIVE_UP_AFTER", 3)
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(ChildSpec("broken", (sys.executable, "-c", "raise SystemExit('no port for me')")))

        def given_up() -> bool:
            try:
                supervisor.check()
            except ProcessFailed:
                return True
            return False

        wait_until(given_up)
        with pytest.raises(ProcessFailed, match=r"(?s)broken died 3 times.*no port for me"):
            supervisor.check()


def test_delays_between_restarts_grow_and_start_over_after_a_steady_time(tmp_path: Path):
    child = Child(ChildSpec("broken", (sys.executable, "-c", "raise SystemExit(1)")), tmp_path)
    child.start(0.0)
    now, waits = 0.0, []
    for lifetime in (0.0, 0.0, 0.0, 60.0):
        wait_until(lambda: child.pid is None)
        died = now + lifetime
        child.tend(died)
        now = died
        while not child.pid and not child.tend(now):
            now += 0.01
        waits.append(round(now - died, 1))
    child.stop(1.0)
    assert waits == [0.1, 0.2, 0.4, 0.1]


def test_nothing_outlives_a_supervisor_that_is_killed(tmp_path: Path):
    program = f"""
import sys, time
from pathlib import Path
from ekko.ops.demo.supervisor import Supervisor
from ekko.ops.demo.child import ChildSpec
with Supervisor(Path({str(tmp_path)!r})) as supervisor:
    supervisor.start(ChildSpec("sleeper", {SLEEPER.command!r}))
    time.sleep(900)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as supervising:
        wait_until((tmp_path / "processes.json").exists)
        pid = pid_of(tmp_path, "sleeper")
        assert pid is not None
        supervising.kill()

    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    wait_until(ended)
