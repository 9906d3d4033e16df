"""What is known of the regions while the demo runs: asked of their stores, and heard in the model's signals."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import NamedTuple

from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.status import (
    SERVER_FILE,
    TRAINER_FILE,
    RegionQuality,
    ServerStatus,
    ServingStatus,
    TrainerStatus,
    read_status,
)
from ekko.ops.status.live import rate
from ekko.ops.status.sample import TIMEOUT_S, LaneFigures, LaneKey, Sample, ask_replica
from ekko.ops.status.signals import Pending, SignalTail, pending
from ekko.schemas.blocks import Lane
from ekko.schemas.errors import EkkoError
from ekko.storage.client import StoreClient
from ekko.streams.kafka import KafkaCluster

REPLICA = "0"
RATE_SAMPLES = 5
"""Rows a second are those since the sample so many redraws ago."""
HEARD_EVERY_S = 1.0
KAFKA_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class RegionView:
    """What is known of a region at one moment; None, or nothing, where it did not answer.

    Attributes:
        lanes: what its store has applied.
        rows_a_second: over both lanes.
        pending: what waits at its fan-out.
    """

    complete: int | None = None
    lanes: Mapping[Lane, LaneFigures] = field(default_factory=dict)
    rows_a_second: float | None = None
    pending: Pending | None = None
    quality: RegionQuality | None = None
    serving: ServingStatus = field(default_factory=ServingStatus)


class Moment(NamedTuple):
    """Everything that the table shows."""

    trainer: TrainerStatus
    regions: dict[str, RegionView]


class Regions:
    """Looks at every region of a run; `close` it."""

    def __init__(self, plan: DemoPlan) -> None:
        self._plan = plan
        self._clients = {
            region: StoreClient(region, plan.model, stores=[address], timeout_s=TIMEOUT_S)
            for region, address in plan.stores.items()
        }
        self._samples: deque[Sample] = deque(maxlen=RATE_SAMPLES)
        self._fanouts = _Fanouts(plan)

    def look(self) -> Moment:
        """Ask all of them now; a region that is away costs half a second."""
        trainer = read_status(self._plan.folder / TRAINER_FILE, TrainerStatus)
        server = read_status(self._plan.folder / SERVER_FILE, ServerStatus)
        found: dict[LaneKey, LaneFigures] = {}
        complete: dict[str, int] = {}
        for region, client in self._clients.items():
            with suppress(EkkoError, OSError, HTTPException):  # shown as a gap: the region is away
                complete[region] = client.state().complete
                found |= ask_replica(region, REPLICA, self._plan.stores[region], [self._plan.model])
        sample = Sample(time.monotonic(), found)
        earlier = self._samples[0] if self._samples else None
        self._samples.append(sample)
        views = {
            region: RegionView(
                complete.get(region),
                {key.lane: figures for key, figures in found.items() if key.region == region},
                rows_a_second(region, sample, earlier),
                self._fanouts.pending.get((region, self._plan.model)),
                trainer.regions.get(region),
                server.regions.get(region, ServingStatus()),
            )
            for region in self._clients
        }
        return Moment(trainer, views)

    def close(self) -> None:
        """Close all connections."""
        self._fanouts.close()
        for client in self._clients.values():
            client.close()


def rows_a_second(region: str, sample: Sample, earlier: Sample | None) -> float | None:
    """Over both lanes; None where one of them has no rate."""
    rates = [rate(key, sample, earlier) for key in sample.lanes if key.region == region]
    known = [each for each in rates if each is not None]
    return sum(known) if known and len(known) == len(rates) else None


class _Fanouts:
    """Hears what waits at the fan-outs, in a thread of its own: a broker that is away must hold up no supervisor."""

    def __init__(self, plan: DemoPlan) -> None:
        self.pending: Mapping[tuple[str, str], Pending] = {}
        self._plan = plan
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pending", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._thread.join(3 * KAFKA_TIMEOUT_S)

    def _run(self) -> None:
        with closing(KafkaCluster(self._plan.bootstrap, timeout_s=KAFKA_TIMEOUT_S)) as cluster:
            tail = SignalTail(cluster)
            while not self._stop.wait(HEARD_EVERY_S):
                try:
                    self.pending = pending(tail.read([self._plan.model]))
                except (EkkoError, TimeoutError):
                    self.pending = {}
