"""Runs an ASGI application on uvicorn in a thread of its own, so that the process's main thread stays in charge."""

import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp

from ekko.schemas.errors import ConfigurationError, EkkoError

_BACKLOG = 1_024
_START_TIMEOUT_S = 10.0


class ServerThread:
    """One HTTP server; the socket is bound at once, so that a wrong address is an error before anything else starts.

    Args:
        port: 0 picks a free one; see `address`.

    Raises:
        ConfigurationError: the address cannot be bound.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="another process holds the port, or the host is no address of this machine; see --host and --port",
            ) from error
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._socket.getsockname()[1]}"
        """host:port where clients reach it."""
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, app: ASGIApp) -> None:
        """Serve `app`; returns once connections are accepted."""
        config = uvicorn.Config(
            app,
            access_log=False,
            backlog=_BACKLOG,
            date_header=False,  # headers that nobody reads cost the client their parsing
            server_header=False,
            http="httptools",
            lifespan="off",
            log_config=None,
            log_level="warning",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=75,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [self._socket]}, name="ekko-http", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not server.started:
            if not self.alive or time.monotonic() > deadline:
                raise EkkoError(f"the HTTP server on {self.address} did not start within {_START_TIMEOUT_S} s")
            time.sleep(0.005)

    def stop(self) -> None:
        """End open requests within two seconds and close the socket."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(5.0)
        self._socket.close()
