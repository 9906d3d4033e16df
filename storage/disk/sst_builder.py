"""Large files are sorted and written by a helper process, out of shared memory: the applies keep their interpreter.

The helper is started with the first large file, told of each by a line of JSON, and ends when its input does; so a
kill of the store takes it along.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import StoreUnwritable
from ekko.storage.disk.durable import Batch, Cells
from ekko.storage.engine.memory import Column, Segment

_RESERVED = 1 << 38
"""Address space of the shared memory; pages are committed as arrays are allocated."""

_KEPT = 512 << 20
"""Memory that stays committed between batches: page faults would stall the writer while it captures the next one."""

_LINE = 64

_PATIENCE_S = 300.0
"""A batch of ten million rows takes a minute on a busy machine: a helper that takes longer is stuck, and is ended."""


class SstBuilder:
    """Shared memory and the helper that writes files from it; one batch at a time, allocated by one thread."""

    def __init__(self) -> None:
        self._memory = Segment.create([Column("batch", "|u1", (_RESERVED,))])
        self._bytes = self._memory.arrays["batch"]
        self._used = 0
        self._highest = 0
        self._helper: subprocess.Popen[bytes] | None = None
        self._building = threading.Lock()

    def allocate(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array of the next batch; uninitialised."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        start = self._used
        self._used = start + -(-size // _LINE) * _LINE
        self._highest = max(self._highest, self._used)
        return self._bytes[start : start + size].view(kind).reshape(shape)

    def discard(self) -> None:
        """The batch will not be built: its memory is for the next one, which follows soon and takes about as much."""
        self._used = 0

    def reset(self) -> None:
        """The batch is done: its memory is for the next one, but for what an unusually large one took."""
        self._used = 0
        self._memory.discard(_KEPT, -(-self._highest // _KEPT) * _KEPT)
        self._highest = min(self._highest, _KEPT)

    def memory_bytes(self) -> int:
        """What stays committed, or is in use."""
        return self._highest

    def build(self, folder: Path, batch: Batch, number: int) -> None:
        """Have the files of a batch, commit `number`, whose arrays were all allocated here, written to `folder`.

        Raises:
            StoreUnwritable: the helper could not write them, or died.
        """
        request = {
            "folder": str(folder),
            "number": number,
            "manifest": batch.manifest.hex(),
            "cells": [self._described(cells) for cells in batch.cells],
        }
        with self._building:
            answer = self._ask(json.dumps(request).encode() + b"\n")
        if answer != b"done\n":
            reason = answer.decode(errors="replace").strip() or "the helper process died, or was stuck"
            raise StoreUnwritable(
                f"{folder} was not written: {reason}",
                hint="free disk space or make the folder writable; the next flush tries again",
            )

    def close(self) -> None:
        """End the helper; harmless when repeated."""
        helper, self._helper = self._helper, None
        if helper is not None:
            with suppress(BrokenPipeError):  # it died with a request half sent
                assert helper.stdin is not None
                helper.stdin.close()
            with helper:
                pass

    def _ask(self, request: bytes) -> bytes:
        if self._helper is None or self._helper.poll() is not None:
            self.close()
            self._helper = self._started()
        assert self._helper.stdin is not None
        assert self._helper.stdout is not None
        watchdog = threading.Timer(_PATIENCE_S, self._helper.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            self._helper.stdin.write(request)
            self._helper.stdin.flush()
            return self._helper.stdout.readline()
        except BrokenPipeError:
            return b""
        finally:
            watchdog.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        descriptor = self._memory.descriptor
        command = [sys.executable, "-m", f"{__package__}.sst_worker", str(descriptor), str(_RESERVED)]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(descriptor,),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def _described(self, cells: Cells) -> dict[str, Any]:
        return {
            "prefix": cells.prefix.hex(),
            "keys": self._placed(cells.keys),
            "columns": [self._placed(column) for column in cells.columns],
            "present": self._placed(cells.present),
        }

    def _placed(self, array: npt.NDArray[Any]) -> list[Any]:
        """[offset, dtype, shape] of an array in the shared memory."""
        return [array.ctypes.data - self._bytes.ctypes.data, array.dtype.str, array.shape]
