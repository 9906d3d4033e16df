"""The server over real sockets: frames, statuses, JSON errors that name what, where and what to do."""

import json
import socket
import time
from collections.abc import Iterator

import numpy as np
import pytest
import urllib3

from ekko.schemas.codec import Codec
from ekko.schemas.errors import ConfigurationError
from ekko.storage.serving import wire
from ekko.storage.serving.served import MAX_LOOKUP_KEYS
from ekko.storage.serving.server_thread import ServerThread
from tests.storage.replica_double import MODEL, ReplicaDouble, serving

LOOKUP = "/v1/models/ctr/tables/embedding/lookup"


@pytest.fixture
def replica() -> ReplicaDouble:
    return ReplicaDouble()


@pytest.fixture
def http(replica: ReplicaDouble) -> Iterator[urllib3.HTTPConnectionPool]:
    with serving(replica) as address, urllib3.connection_from_url(f"http://{address}") as pool:
        yield pool


def problem(reply: urllib3.BaseHTTPResponse) -> tuple[int, dict[str, str]]:
    return reply.status, json.loads(reply.data)["error"]


def test_lookup_reply_carries_rows_found_and_state(http: urllib3.HTTPConnectionPool, replica: ReplicaDouble) -> None:
    keys = np.array([3, 900, 3], np.uint64)
    reply = wire.decode_lookup(http.request("POST", LOOKUP, body=wire.encode_keys(keys)).data)
    assert reply.rows.tolist() == [[3, 4, 5], [0, 0, 0], [3, 4, 5]]
    assert reply.found.tolist() == [True, False, True]
    assert wire.read_state(reply.states[0], Codec()) == replica.state


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 8_193, MAX_LOOKUP_KEYS])
def test_lookups_of_any_size(http: urllib3.HTTPConnectionPool, count: int) -> None:
    keys = np.arange(count, dtype=np.uint64)
    reply = wire.decode_lookup(http.request("POST", LOOKUP, body=wire.encode_keys(keys)).data)
    assert reply.rows.shape == (count, 3)
    assert reply.found.sum() == max(0, min(count - 1, 8))


def test_as_of_reaches_the_store(http: urllib3.HTTPConnectionPool) -> None:
    body = wire.encode_keys(np.array([2], np.uint64))
    assert wire.decode_lookup(http.request("POST", LOOKUP + "?as_of=5", body=body).data).rows.tolist() == [[10, 15, 20]]
    status, error = problem(http.request("POST", LOOKUP + "?as_of=6", body=body))
    assert (status, error["code"]) == (409, "StateUnavailable")
    for wrong in ("x", "-1", ""):
        status, error = problem(http.request("POST", f"{LOOKUP}?as_of={wrong}", body=body))
        assert (status, error["code"]) == (400, "BadInput")
        assert repr(wrong) in error["what"]


@pytest.mark.parametrize(
    ("request_line", "body", "answer", "words"),
    [
        (f"POST {LOOKUP}", b"1234567", (400, "BadInput"), "7 bytes"),
        (f"POST {LOOKUP}", b"\0" * 8 * (MAX_LOOKUP_KEYS + 1), (400, "BadInput"), "longer than"),
        ("POST /v1/models/nope/tables/embedding/lookup", b"", (404, "ConfigurationError"), "nope"),
        ("POST /v1/models/ctr/tables/nope/lookup", b"", (404, "ConfigurationError"), "nope"),
        (f"GET {LOOKUP}", b"", (405, "BadInput"), "GET"),
        ("GET /v1/nothing", b"", (404, "ConfigurationError"), "no such path"),
        ("GET /v1/models/ctr/checksum", b"", (400, "BadInput"), "table"),
        ("GET /v1/models/ctr/checksum?table=nope", b"", (404, "ConfigurationError"), "nope"),
        ("POST /v1/models/ctr/signals", b"{", (400, "BadInput"), "signal"),
        ("POST /v1/models/ctr/signals", b'{"metric": "auc", "value": NaN}', (400, "BadInput"), "value"),
        ("POST /v1/models/ctr/signals", b'{"metric": "auc", "value": 1, "count": -1}', (400, "BadInput"), "count"),
        ("POST /v1/models/ctr/signals", b"x" * 70_000, (400, "BadInput"), "longer than"),
    ],
)
def test_bad_requests_get_an_error_that_helps(
    http: urllib3.HTTPConnectionPool, request_line: str, body: bytes, answer: tuple[int, str], words: str
) -> None:
    method, path = request_line.split()
    got, error = problem(http.request(method, path, body=body, retries=False))
    assert (got, error["code"]) == answer
    assert words in error["what"]
    assert error["where"] == request_line.partition("?")[0]
    assert error["hint"]
    assert http.request("GET", "/health").status == 200  # the server goes on


@pytest.mark.parametrize("number", ["9" * 5_000, "9" * 19, "%C3%A9", "%D9%A3", "%FF"])
def test_a_state_that_is_no_number_of_ours_is_refused_in_short(replica: ReplicaDouble, number: str) -> None:
    with serving(replica) as address:
        for method, path in (("POST", f"{LOOKUP}?as_of="), ("GET", "/v1/models/ctr/checksum?table=bias&as_of=")):
            status, body = raw(address, f"{method} {path}{number} HTTP/1.1")
            assert status == 400
            error = json.loads(body)["error"]
            assert (error["code"], "no model state" in error["what"]) == ("BadInput", True)
            assert len(error["what"]) < 100


@pytest.mark.parametrize("number", ["\xe9", "\u0663"])
def test_bytes_that_are_no_http_are_refused(replica: ReplicaDouble, number: str) -> None:
    with serving(replica) as address:
        assert raw(address, f"POST {LOOKUP}?as_of={number} HTTP/1.1")[0] == 400
        assert raw(address, "GET /health HTTP/1.1")[0] == 200


def raw(address: str, request_line: str) -> tuple[int, bytes]:
    """Send bytes that no client library would, and return status and body."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as link:
        link.sendall(request_line.encode() + b"\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        head, _, body = link.makefile("rb").read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    "event_us", [2**62 - 1, -1, int((time.time() + 7_200) * 1e6)], ids=["far-future", "before-1970", "in-two-hours"]
)
def test_events_of_another_time_are_refused(
    http: urllib3.HTTPConnectionPool, replica: ReplicaDouble, event_us: int
) -> None:
    body = json.dumps({"metric": "auc", "value": 1.0, "event_us": event_us})
    status, error = problem(http.request("POST", "/v1/models/ctr/signals", body=body, retries=False))
    assert (status, error["code"], "event_us" in error["what"]) == (400, "BadInput", True)
    assert error["hint"]
    assert not replica.signals
    soon = json.dumps({"metric": "auc", "value": 1.0, "event_us": int((time.time() + 60) * 1e6)})
    assert http.request("POST", "/v1/models/ctr/signals", body=soon).status == 202  # clocks differ


def test_not_ready_is_503_with_a_time_to_come_back(http: urllib3.HTTPConnectionPool, replica: ReplicaDouble) -> None:
    replica.is_ready = False
    reply = http.request("POST", LOOKUP, body=b"", retries=False)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    ready = http.request("GET", "/ready", retries=False)
    assert (ready.status, json.loads(ready.data)["waiting"]) == (503, ["ctr"])
    assert http.request("GET", "/health").status == 200


def test_signals_are_relayed_with_time_and_region(http: urllib3.HTTPConnectionPool, replica: ReplicaDouble) -> None:
    body = b'{"metric": "log_loss", "value": 12.5, "count": 40, "cohort": "baseline", "source": "serving/eu-1"}'
    assert http.request("POST", "/v1/models/ctr/signals", body=body).status == 202
    (signal,) = replica.signals
    assert (signal.model, signal.region, signal.source, signal.metric) == ("ctr", "east", "serving/eu-1", "log_loss")
    assert (signal.value, signal.count, signal.cohort) == (12.5, 40, "baseline")
    assert signal.event_us > 1_600_000_000_000_000


def test_pages_for_people_and_scripts(http: urllib3.HTTPConnectionPool, replica: ReplicaDouble) -> None:
    replica.region_members = [replica.member("127.0.0.1:1")]
    assert wire.MODEL_JSON.validate_json(http.request("GET", "/v1/models/ctr").data) == MODEL
    assert wire.MODELS_JSON.validate_json(http.request("GET", "/v1/models").data) == [MODEL]
    assert wire.MEMBERS_JSON.validate_json(http.request("GET", "/v1/members").data) == replica.region_members
    assert json.loads(http.request("GET", "/v1/models/ctr/latency").data)["express"]["p99"] == 1.5
    checksum = http.request("GET", "/v1/models/ctr/checksum?table=bias&as_of=2").data
    assert wire.CHECKSUM_JSON.validate_json(checksum).checksum == 2**63 + 2
    assert http.request("GET", "/metrics").headers["content-type"].startswith("text/plain")


def test_an_address_in_use_is_told_at_once(replica: ReplicaDouble) -> None:
    with serving(replica) as address, pytest.raises(ConfigurationError, match=f"cannot listen on {address}"):
        ServerThread("127.0.0.1", int(address.rpartition(":")[2]))


def test_a_snapshot_is_taken_and_its_files_are_sent(http: urllib3.HTTPConnectionPool) -> None:
    reply = http.request("POST", "/v1/models/ctr/snapshots")
    taken = wire.SNAPSHOT_JSON.validate_json(reply.data)
    assert (reply.status, taken.name, taken.taken_s) == (201, "ctr@11.east@12", 17)
    for name, size in taken.files.items():
        sent = http.request("GET", f"/v1/models/ctr/snapshots/17/{name}").data
        assert len(sent) == size
        assert b"snapshot_file" in sent
    for wrong in ("17/../../etc/passwd", "18/state", "17/"):
        assert problem(http.request("GET", f"/v1/models/ctr/snapshots/{wrong}"))[0] == 404
