"""The serving loop, a process of its own: ranks items for the users of the replay with rows of every region."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ekko.ops.demo.cohorts import SAMPLES_A_SECOND, Upcoming, report
from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.model import Batch, logits
from ekko.ops.demo.plan import STREAM_FILE, TABLE, DemoPlan
from ekko.ops.demo.status import (
    SERVER_FILE,
    TRAINER_FILE,
    ServerStatus,
    ServingStatus,
    TrainerStatus,
    read_status,
    write_status,
)
from ekko.ops.process import stop_on_signals
from ekko.schemas.errors import EkkoError
from ekko.storage.client import StoreClient
from ekko.storage.client.reporter import SignalReporter

REQUESTS_A_SECOND = 20
CANDIDATES = 100
SHOWN = 10
STATUS_EVERY_S = 1.0
LATENCIES_KEPT = 5_000
LOOKUP_TIMEOUT_S = 0.5

_log = logging.getLogger("ekko.demo.server")


def ranking_batch(interactions: Interactions, visit: int) -> Batch:
    """The candidates for the user of one visit: the items of up to `CANDIDATES` visits before it, labels unused."""
    first = max(0, visit + 1 - CANDIDATES)
    columns = interactions.user_columns
    keys = interactions.keys[first : visit + 1].copy()
    values = interactions.values[first : visit + 1].copy()
    keys[:, :columns], values[:, :columns] = interactions.keys[visit, :columns], interactions.values[visit, :columns]
    distinct, index = np.unique(keys, return_inverse=True)
    return Batch(distinct, index.reshape(keys.shape), values, np.zeros(len(keys), np.float32))


def best(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Positions of the `SHOWN` highest scores, best first."""
    return np.argsort(-scores, kind="stable")[:SHOWN]


@dataclass(slots=True)
class RegionServing:
    """Requests served from one region; each is reported, for the monitor makes the model's share of them."""

    client: StoreClient
    reporter: SignalReporter
    requests: int = 0
    failed: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def serve(self, batch: Batch) -> NDArray[np.intp] | None:
        """The best candidates; None when the region has no answer."""
        asked = time.perf_counter()
        try:
            rows = self.client.lookup(TABLE, batch.keys).values
        except EkkoError as error:
            self.failed += 1
            _log.warning("%s does not serve: %s", self.client.region, error)
            return None
        self.latencies_ms.append((time.perf_counter() - asked) * 1e3)
        self.requests += 1
        self.reporter.requests()
        return best(logits(rows, batch))

    def status(self) -> ServingStatus:
        """What happened so far."""
        median, tail = np.percentile(self.latencies_ms, [50, 99]).tolist() if self.latencies_ms else (None, None)
        return ServingStatus(requests=self.requests, failed=self.failed, lookup_ms_p50=median, lookup_ms_p99=tail)


def serve(plan: DemoPlan, interactions: Interactions, clients: dict[str, StoreClient], stop: threading.Event) -> None:
    """Serve at a fixed rate until ``stop`` is set, each user of the replay about when they come; report quality."""
    regions = {region: RegionServing(client, SignalReporter(client)) for region, client in clients.items()}
    position, status_due = 0, time.monotonic() + STATUS_EVERY_S
    upcoming, sample_due = Upcoming(interactions, plan.rate), time.monotonic()
    while not stop.wait(1 / REQUESTS_A_SECOND):
        batch = ranking_batch(interactions, min(position, len(interactions) - 1))
        for serving in regions.values():
            serving.serve(batch)
        if time.monotonic() >= sample_due:
            sample_due = time.monotonic() + 1 / SAMPLES_A_SECOND
            sample(upcoming, regions)
        if time.monotonic() >= status_due:
            status_due += STATUS_EVERY_S
            position = read_status(plan.folder / TRAINER_FILE, TrainerStatus).position
            upcoming.follow(position)
            status = ServerStatus(regions={region: serving.status() for region, serving in regions.items()})
            write_status(plan.folder / SERVER_FILE, status)


def sample(upcoming: Upcoming, regions: Mapping[str, RegionServing]) -> None:
    """Report the quality of every region on the same interactions."""
    batch = upcoming.take()
    if batch is not None:
        for serving in regions.values():
            report(batch, serving.client, serving.reporter)


def main(folder: Path) -> None:
    """Serve as the plan in ``folder`` says, until SIGTERM."""
    stop = stop_on_signals()
    plan = DemoPlan.read(folder)
    clients = {
        region: StoreClient(region, plan.model, stores=[address], timeout_s=LOOKUP_TIMEOUT_S)
        for region, address in plan.stores.items()
    }
    serve(plan, Interactions.load(plan.folder / STREAM_FILE), clients, stop)
