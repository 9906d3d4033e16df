"""An `ekko` command that interrupts itself at a moment of its work, which is that one however slow the machine is."""

import signal
import subprocess
import sys

import psutil

from tests.waiting import wait_for

CHUNK = "ekko.streams.operations.rows_writer:RowsWriter.publish"
"""A chunk of rows is committed to the source log."""

_PROGRAM = """
import os, pkgutil
from ekko.ops.cli import main

owner = pkgutil.resolve_name({owner!r})
work, left = owner.{name}, [{times}]

def counted(*given):
    done = work(*given)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), {number})
    return done

owner.{name} = counted
main()
"""


def interrupted(number: signal.Signals, place: str, times: int, *arguments: str) -> "subprocess.Popen[str]":
    """Start `ekko` with these arguments; it gets the signal when the function at `place` has returned so many times.

    Args:
        place: `module.function`, or `module:Class.method`.
    """
    owner, _, name = place.rpartition(".")
    program = _PROGRAM.format(owner=owner, name=name, times=times, number=int(number))
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def await_stopped(process: "subprocess.Popen[str]") -> None:
    """Wait until it has stopped itself (SIGSTOP); it must not have ended."""

    def stopped() -> bool:
        assert process.poll() is None, process.communicate()
        return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)

    wait_for(stopped, what="it stops itself")


def await_killed(process: "subprocess.Popen[str]") -> None:
    """Wait until it has killed itself (SIGKILL); it must not have come to its end."""
    said = process.communicate(timeout=180)
    assert process.returncode == -signal.SIGKILL, said
