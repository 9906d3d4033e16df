"""Run a broker in the foreground of a terminal or under a supervisor."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from ekko.ops.broker.distribution import Distribution
from ekko.ops.broker.errors import BrokerError
from ekko.ops.broker.process import Broker
from ekko.storage.disk.data_folder import make_folder

WATCH_S = 0.5


def run(
    data: Path, *, port: int | None, heap_mb: int, properties: Mapping[str, str], distribution: Distribution
) -> None:
    """Start, print the bootstrap address, and return once SIGINT or SIGTERM has stopped the broker.

    Raises:
        BrokerError: it could not start, or ended by itself.
        ConfigurationError: the folder cannot be made or written to.
    """
    asked_to_end = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_end
        asked_to_end = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    make_folder(data, "--data")
    with Broker(data, port=port, heap_mb=heap_mb, properties=properties, distribution=distribution) as broker:
        sys.stdout.write(f"{broker.bootstrap}\n")
        sys.stdout.flush()
        sys.stderr.write(f"Kafka is ready (pid {broker.pid}, log {broker.folder.log}); Ctrl-C stops it\n")
        while not asked_to_end:
            code = broker.wait(WATCH_S)
            if code is not None and not asked_to_end:
                raise BrokerError(
                    f"the broker ended by itself with code {code}; its log ends:\n{broker.log_tail()}",
                    hint="Start it again: its data is kept.",
                )
