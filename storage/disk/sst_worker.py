"""The helper process of `sst_builder`: writes sorted files from shared memory until its input ends."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ekko.storage.disk.durable import Batch, Cells
from ekko.storage.disk.rocks import write_files
from ekko.storage.engine.memory import Column, Segment


def main(descriptor: int, size: int) -> None:
    """Serve requests from standard input: a line of JSON a file, answered by `done` or by what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the store decides when it ends
    os.nice(5)  # the store's readers and applies go first
    memory = Segment.share(descriptor, [Column("batch", "|u1", (size,))]).arrays["batch"]
    for line in sys.stdin:
        try:
            _serve(json.loads(line), memory)
            answer = "done"
        except Exception as error:  # noqa: BLE001 - whatever it is, the store must hear of it
            answer = " ".join(str(error).split()) or repr(error)
        try:
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os._exit(0)  # the store was killed; nobody listens, not even at the interpreter's end


def _serve(request: dict[str, Any], memory: npt.NDArray[np.uint8]) -> None:
    cells = tuple(
        Cells(
            prefix=bytes.fromhex(part["prefix"]),
            keys=_array(memory, part["keys"]),
            columns=tuple(_array(memory, column) for column in part["columns"]),
            present=_array(memory, part["present"]),
        )
        for part in request["cells"]
    )
    write_files(Path(request["folder"]), Batch(cells, bytes.fromhex(request["manifest"])), request["number"])


def _array(memory: npt.NDArray[np.uint8], place: list[Any]) -> npt.NDArray[Any]:
    offset, dtype, shape = place
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    part: npt.NDArray[Any] = memory[offset : offset + size].view(kind)
    return part.reshape(shape)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
