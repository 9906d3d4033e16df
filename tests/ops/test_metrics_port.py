"""Where fan-outs and managers serve their metrics."""

import socket
from urllib.request import urlopen

import pytest
from prometheus_client import Counter

from ekko.ops.process import serve_metrics
from ekko.schemas.errors import ConfigurationError
from tests.ports import free_port


def test_metrics_are_served_where_they_are_asked_for() -> None:
    Counter("test_metrics_port_served", "Counts this.").inc()
    port = free_port()
    serve_metrics("127.0.0.1", port)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        assert "test_metrics_port_served_total 1.0" in answer.read().decode()


def test_without_a_port_nothing_listens() -> None:
    serve_metrics("not an address", None)


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"cannot be served on 127\.0\.0\.1:{port}: .*in use") as caught:
            serve_metrics("127.0.0.1", port)
    assert "--metrics-port" in caught.value.hint
