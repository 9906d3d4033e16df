"""What ends `ekko monitor` before Faust runs: settings that cannot work, and signals that come early."""

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from ekko.ops.monitor_process import pass_on, run
from ekko.ops.settings import Settings
from ekko.schemas.errors import ConfigurationError
from ekko.streams.monitor.settings import MonitorSettings
from tests.ports import free_port


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signal handlers as they were."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}") as caught:
            run(Settings(), MonitorSettings(host="127.0.0.1", port=port, data=tmp_path))
    assert "--port" in caught.value.hint


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/monitor cannot be used as a data folder") as caught:
        run(Settings(), MonitorSettings(port=free_port(), data=tmp_path / "file" / "monitor"))
    assert "EKKO_DATA" in caught.value.hint


def test_a_signal_that_came_before_fausts_handlers_is_sent_again() -> None:
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    signal.signal(signal.SIGTERM, hear)
    stop = threading.Event()
    pass_on(stop)
    assert heard == []
    stop.set()
    pass_on(stop)
    pass_on(stop)
    assert heard == [signal.SIGTERM]
