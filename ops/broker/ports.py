"""Loopback ports for a broker."""

import random
import socket
import time

from ekko.ops.broker.errors import BrokerError

RANGE = range(20_000, 32_000)
"""Below the ephemeral range: a client that keeps dialling a killed broker must not be given the broker's own port as
its source port, connect to itself and so keep the broker from coming back."""


def free(host: str) -> int:
    """Return a port on which nobody listens now.

    Raises:
        BrokerError: none was found.
    """
    for port in random.sample(RANGE, 100):
        if is_free(host, port):
            return port
    raise BrokerError(f"no free port between {RANGE.start} and {RANGE.stop} on {host}", hint="Name one: --port N.")


def is_free(host: str, port: int) -> bool:
    """Return whether a listener can bind here (a connection that lingers in TIME_WAIT is no obstacle)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require_free(host: str, port: int, wait_s: float) -> None:
    """Wait until the port is free.

    Raises:
        BrokerError: somebody still listens after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    while not is_free(host, port):
        if time.monotonic() > deadline:
            raise BrokerError(
                f"port {port} on {host} is in use by another program",
                hint="Choose another with --port N, or leave --port out for a free one.",
            )
        time.sleep(0.05)


def accepts(host: str, port: int) -> bool:
    """Return whether somebody accepts TCP connections here."""
    try:
        socket.create_connection((host, port), timeout=0.2).close()
    except OSError:
        return False
    return True
