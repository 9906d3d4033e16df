"""Ports that a test gives to a process, which binds them seconds later: nobody else may be given them meanwhile."""

import itertools
import os
import random

from ekko.ops.broker import ports

_HOST = "127.0.0.1"
_RANGE = range(12_000, 20_000)
"""Below the ephemeral range, which clients connect from, and apart from the one that brokers draw from."""
_WORKERS = 8
_SHARE = len(_RANGE) // _WORKERS


def _mine() -> range:
    """This worker's part of the range: what another one has been given is none of ours."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    return _RANGE[worker * _SHARE : (worker + 1) * _SHARE]


_turn = itertools.cycle(_mine())
for _ in range(random.randrange(_SHARE)):  # other runs on this machine begin elsewhere
    next(_turn)


def free_port() -> int:
    """A port of loopback on which nobody listens, and that this process is given once only until all others were."""
    for port in itertools.islice(_turn, _SHARE):
        if ports.is_free(_HOST, port):
            return port
    raise AssertionError(f"no free port in {_mine()}")
