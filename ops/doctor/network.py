"""Whether this machine can reach the brokers: at the bootstrap address, and where each of them advertises itself."""

import socket
from collections.abc import Callable, Iterator, Mapping

from ekko.ops.findings import Finding, ok, problem
from ekko.schemas.errors import ConnectionFailed

Connect = Callable[[str, int], str]
"""Tries a TCP connection; returns what is wrong, "" if nothing is."""

CONNECT_TIMEOUT_S = 3.0


def try_connect(host: str, port: int) -> str:
    """See `Connect`."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except socket.gaierror:
        return "the name does not resolve on this machine"
    except TimeoutError:
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def parse(bootstrap: str) -> list[tuple[str, int]]:
    """Hosts and ports of `host:port,host:port`; port 0 where it is none."""
    found = []
    for entry in bootstrap.split(","):
        host, _, port = entry.strip().rpartition(":")
        found.append((host.strip("[]"), int(port) if port.isdigit() else 0))
    return found


def check_bootstrap(bootstrap: str, connect: Connect = try_connect) -> list[Finding]:
    """Each bootstrap address: one that works is enough, but one that does not delays every start."""
    findings = []
    for host, port in parse(bootstrap):
        if not host or not port:
            findings.append(problem("bootstrap", f"{bootstrap!r} is no list of host:port", "--bootstrap HOST:PORT,..."))
            continue
        trouble = connect(host, port)
        fix = "start the broker, open the port, or correct --bootstrap (EKKO_BOOTSTRAP, bootstrap in ekko.toml)"
        findings.append(
            problem("bootstrap", f"{host}:{port}: {trouble}", fix)
            if trouble
            else ok("bootstrap", f"{host}:{port} answers")
        )
    return findings


def check_advertised(
    bootstrap: str, brokers: Mapping[int, tuple[str, int]], connect: Connect = try_connect
) -> Iterator[Finding]:
    """Clients leave the bootstrap address for the ones that brokers advertise: those must work from here, too."""
    for number, (host, port) in brokers.items():
        trouble = connect(host, port)
        if not trouble:
            yield ok("advertised", f"broker {number} advertises {host}:{port}, which answers")
            continue
        reached = parse(bootstrap)[0][0]
        yield problem(
            "advertised",
            f"{bootstrap} answers, but sends clients on to {host}:{port} (broker {number}), and there: {trouble}",
            f"set advertised.listeners of broker {number} to an address that works from here, e.g. {reached}:{port}; "
            "where others need another one, give it a listener of its own (docker-compose.yml does)",
        )


def unreachable(error: ConnectionFailed) -> Finding:
    """The brokers do not let us in."""
    return problem("connection", error.message, error.hint)
