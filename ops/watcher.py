"""No orphans: a child process is stopped when its parent dies, in whatever way."""

import subprocess

_SCRIPT = "read done || { kill -TERM $0; sleep 10; kill -KILL $0; }"
"""A shell that waits on a pipe held by the parent alone: if the parent dies, the pipe closes and the child is stopped.
(The kernel's parent-death signal fires when the starting *thread* ends, and only on Linux.)"""


def watch(pid: int) -> subprocess.Popen[bytes]:
    """Start a watcher over the process `pid`, a child of this one; `dismiss` it once the child has ended."""
    return subprocess.Popen(
        ["sh", "-c", _SCRIPT, str(pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def dismiss(watcher: subprocess.Popen[bytes]) -> None:
    """End the watcher before its pid could belong to somebody else."""
    watcher.kill()
    watcher.communicate()
