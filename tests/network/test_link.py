"""The network lab does what it says: throttles, delays, cuts."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.network.link import Link
from tests.ports import free_port


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture
def link() -> Iterator[Link]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Link(free_port(), server.server_address[1]) as link:
            yield link
        server.shutdown()


def send(client: socket.socket, size: int) -> None:
    with contextlib.suppress(OSError):  # the link may be cut, which whoever receives notices
        client.sendall(bytes(size))


def there_and_back(link: Link, size: int) -> float:
    host, port = link.bootstrap.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        began = time.monotonic()
        sending = threading.Thread(target=send, args=(client, size))
        sending.start()
        received = 0
        while received < size:
            chunk = client.recv(65536)
            assert chunk, "the link broke"
            received += len(chunk)
        return time.monotonic() - began


def test_unlimited_is_fast_and_everything_is_counted(link: Link) -> None:
    took_s = [there_and_back(link, 1_000_000)]
    while len(took_s) < 20 and min(took_s) >= 2.0:  # a busy machine makes some slow, a limit all of them
        took_s.append(there_and_back(link, 1_000_000))
    assert min(took_s) < 2.0
    assert link.carried() == (len(took_s) * 1_000_000, len(took_s) * 1_000_000)


def test_the_rate_is_kept(link: Link) -> None:
    link.limit(200_000)
    took_s: list[float] = []
    while len(took_s) < 20 and min(took_s, default=3.0) >= 3.0:
        took_s.append(there_and_back(link, 200_000))
    assert 0.8 < min(took_s) < 3.0


def test_the_delay_counts_each_way(link: Link) -> None:
    link.delay(0.15)
    took_s: list[float] = []
    while len(took_s) < 20 and min(took_s, default=1.0) >= 1.0:
        took_s.append(there_and_back(link, 10))
    assert 0.3 <= min(took_s) < 1.0


def test_a_cut_ends_connections_until_it_is_healed(link: Link) -> None:
    link.cut()
    with pytest.raises((AssertionError, OSError)):
        there_and_back(link, 10)
    link.heal()
    there_and_back(link, 10)
