"""No orphans: a child process is stopped when its parent dies, in whatever way and at whatever moment."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_WATCHER = 'read -r pid || exit; read -r _; kill -TERM "$pid"; sleep 10; kill -KILL "$pid"'
"""A shell that waits on a pipe of which the parent alone holds the other end: if the parent dies, the pipe closes and
the child is stopped. (The kernel's parent-death signal fires when the starting *thread* ends, and only on Linux.)"""
_CHILD = 'echo "$$"; exec "$@" >&2'
"""The child tells the watcher its pid and only then becomes the program: until it has, it holds the pipe, too. A parent
that dies between starting the child and learning its pid leaves nothing unwatched that way."""


def start_watched(
    command: Sequence[str],
    output: IO[bytes],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start a process and a watcher over it; `dismiss` the watcher once the process has ended.

    The process gets a session of its own (Ctrl-C in a terminal reaches the parent, which stops it in good order), no
    input, and one file for all its output. A command that does not exist ends with code 127, and the output says why.

    Args:
        command: program and arguments.
        output: gets what it writes.
        folder: where it works; None is the parent's.
        environment: its variables; None are the parent's.
    """
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _CHILD, "sh", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=watcher.stdin,
            stderr=output,
            start_new_session=True,
        )
    except BaseException:
        dismiss(watcher)
        raise
    return process, watcher


def dismiss(watcher: subprocess.Popen[bytes]) -> None:
    """End the watcher before its pid could belong to somebody else."""
    watcher.kill()
    watcher.communicate()
