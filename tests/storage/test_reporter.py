"""The signal reporter against a server that takes signals, and one that is away."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from ekko.schemas.errors import BadInput
from ekko.storage.client import StoreClient
from ekko.storage.client.reporter import SignalReporter


class Receiver:
    """Takes what a store's /signals takes; `away` lets it refuse."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.away = False
        self.refused = ""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if body["metric"] == receiver.refused:
                    self.answer(400, b'{"error": {"code": "BadInput", "what": "no", "where": "", "hint": ""}}')
                elif receiver.away:
                    self.answer(503)
                else:
                    receiver.bodies.append(body)
                    self.answer(202)

            def answer(self, status: int, reply: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def do_GET(self) -> None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def reporter(receiver: Receiver) -> Iterator[SignalReporter]:
    with StoreClient("east", "ctr", stores=[receiver.address]) as client:
        reporter = SignalReporter(client, interval_s=3600, clock=lambda: 100.25)
        yield reporter
        receiver.away = False
        reporter.close()


def test_samples_are_summed_by_second_metric_and_cohort(reporter: SignalReporter, receiver: Receiver) -> None:
    reporter.sample("log_loss", [0.5, 1.5])
    reporter.sample("log_loss", 2.0)
    reporter.sample("log_loss", [1.0], cohort="baseline")
    reporter.sample("log_loss", [7.0], event_s=90.9)
    reporter.requests(3)
    assert reporter.flush()
    assert receiver.bodies == [
        {"metric": "log_loss", "value": 7.0, "count": 1, "cohort": "live", "event_us": 90_000_000},
        {"metric": "log_loss", "value": 1.0, "count": 1, "cohort": "baseline", "event_us": 100_000_000},
        {"metric": "log_loss", "value": 4.0, "count": 3, "cohort": "live", "event_us": 100_000_000},
        {"metric": "requests", "value": 3.0, "count": 3, "cohort": "live", "event_us": 100_000_000},
    ]


def test_what_is_no_number_is_counted_apart(reporter: SignalReporter, receiver: Receiver) -> None:
    reporter.sample("log_loss", np.array([1.0, np.nan, np.inf]))
    reporter.flush()
    assert [(body["metric"], body["value"], body["count"]) for body in receiver.bodies] == [
        ("log_loss", 1.0, 1),
        ("not_finite", 2.0, 2),
    ]


@pytest.mark.parametrize("event_s", [-1.0, 100.25 + 3_601, 1e30, float("nan"), float("inf")])
def test_a_time_that_can_only_be_a_mistake_is_refused_where_it_is_given(
    reporter: SignalReporter, receiver: Receiver, event_s: float
) -> None:
    with pytest.raises(BadInput, match="event_"):
        reporter.sample("log_loss", [1.0], event_s=event_s)
    assert reporter.flush()
    assert receiver.bodies == []


def test_what_a_store_refuses_does_not_hold_up_what_comes_after_it(
    reporter: SignalReporter, receiver: Receiver
) -> None:
    receiver.refused = "auc"
    reporter.sample("auc", [0.5, 0.5])
    reporter.sample("log_loss", [1.0])
    assert reporter.flush()
    assert [body["metric"] for body in receiver.bodies] == ["log_loss"]
    assert reporter.dropped == 2


def test_what_cannot_be_sent_waits_within_a_bound(
    reporter: SignalReporter, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekko.storage.client.reporter._MAX_WAITING", 2)
    receiver.away = True
    for second in range(4):
        reporter.sample("log_loss", [1.0, 1.0], event_s=second)
    assert not reporter.flush()
    assert reporter.dropped == 4
    receiver.away = False
    assert reporter.flush()
    assert [body["event_us"] for body in receiver.bodies] == [2_000_000, 3_000_000]
