"""What a person sees while the demo runs: a live table, or a line now and then."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.status import (
    SERVER_FILE,
    TRAINER_FILE,
    Comparison,
    RegionQuality,
    ServerStatus,
    ServingStatus,
    TrainerStatus,
    read_status,
)
from ekko.ops.demo.supervisor import Supervisor
from ekko.ops.figures import figure
from ekko.schemas.errors import EkkoError
from ekko.storage.client import StoreClient
from ekko.storage.serving.served import Percentiles, UpdateLatency

READ_TIMEOUT_S = 0.3
REDRAW_S = 0.5
LINE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class RegionView:
    """What is known of a region at one moment; None where it did not answer."""

    complete: int | None
    latency: UpdateLatency | None
    quality: RegionQuality | None
    serving: ServingStatus


def read_region(client: StoreClient, trainer: TrainerStatus, server: ServerStatus) -> RegionView:
    """Ask a region's store, and put what trainer and server tell beside it."""
    complete = latency = None
    with suppress(EkkoError):  # shown as a gap: the region is away
        complete, latency = client.state().complete, client.latency()
    serving = server.regions.get(client.region, ServingStatus())
    return RegionView(complete, latency, trainer.regions.get(client.region), serving)


def render(trainer: TrainerStatus, regions: dict[str, RegionView], restarts: dict[str, int], refresh_s: float) -> Group:
    """The table and the line below it."""
    table = Table(title="Rows learnt by one trainer, served in two regions")
    table.add_column()
    for region in regions:
        table.add_column(region, justify="right")
    for name, cells in _lines(regions, refresh_s):
        table.add_row(name, *cells)
    again = ", ".join(f"{name} {count}x" for name, count in restarts.items() if count) or "none"
    told = f"{trainer.position:,} interactions, {trainer.acknowledged_rows:,} row updates; restarts: {again}"
    return Group(table, Text(told))


def _lines(regions: dict[str, RegionView], refresh_s: float) -> list[tuple[str, list[str]]]:
    views = regions.values()
    runs = [view.quality.run if view.quality else Comparison() for view in views]
    latencies = [view.latency.all if view.latency else Percentiles(0) for view in views]
    return [
        ("complete at model state", [figure(view.complete, "d") for view in views]),
        ("publish to readable, p50 ms", [figure(found.p50, ".1f") for found in latencies]),
        ("publish to readable, p99 ms", [figure(found.p99, ".1f") for found in latencies]),
        ("AUC with live rows", [figure(found.auc_live, ".4f") for found in runs]),
        (f"AUC with rows refreshed every {refresh_s:g} s", [figure(found.auc_stale, ".4f") for found in runs]),
        ("rankings served", [figure(view.serving.requests, ",d") for view in views]),
        ("lookup of a ranking, p50 ms", [figure(view.serving.lookup_ms_p50, ".2f") for view in views]),
        ("lookup of a ranking, p99 ms", [figure(view.serving.lookup_ms_p99, ".2f") for view in views]),
    ]


class LiveTable:
    """Redraws the table as long as the trainer runs; a context manager."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._clients: dict[str, StoreClient] = {}
        self._due_s = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        for client in self._clients.values():
            client.close()

    def watch(self, plan: DemoPlan, supervisor: Supervisor) -> None:
        """Redraw if it is time."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + REDRAW_S
        trainer = read_status(plan.folder / TRAINER_FILE, TrainerStatus)
        server = read_status(plan.folder / SERVER_FILE, ServerStatus)
        regions = {region: read_region(self._client(plan, region), trainer, server) for region in plan.stores}
        self._live.update(render(trainer, regions, supervisor.restarts(), plan.refresh_s), refresh=True)

    def _client(self, plan: DemoPlan, region: str) -> StoreClient:
        if region not in self._clients:
            stores = [plan.stores[region]]
            self._clients[region] = StoreClient(region, plan.model, stores=stores, timeout_s=READ_TIMEOUT_S)
        return self._clients[region]


class Lines:
    """A line of progress every ten seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due_s = time.monotonic() + LINE_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def watch(self, plan: DemoPlan, supervisor: Supervisor) -> None:
        """Print if it is time."""
        if time.monotonic() < self._due_s:
            return
        self._due_s += LINE_EVERY_S
        trainer = read_status(plan.folder / TRAINER_FILE, TrainerStatus)
        runs = [
            f"{region}: AUC live {figure(quality.run.auc_live, '.4f')}, stale {figure(quality.run.auc_stale, '.4f')}"
            for region, quality in trainer.regions.items()
        ]
        again = sum(supervisor.restarts().values())
        self._console.print("; ".join([f"{trainer.position:,} interactions", *runs, f"restarts: {again}"]))
