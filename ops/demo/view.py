"""What a person sees while the demo runs: a live table, or a line now and then."""

import time
from collections.abc import Iterable
from contextlib import ExitStack, closing
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.regions import Regions, RegionView
from ekko.ops.demo.status import TRAINER_FILE, Comparison, TrainerStatus, read_status
from ekko.ops.demo.supervisor import Supervisor
from ekko.ops.figures import figure
from ekko.schemas.blocks import Lane
from ekko.storage.serving.served import Percentiles

REDRAW_S = 0.5
LINE_EVERY_S = 10.0


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
    older = f"rows refreshed every {refresh_s:g} s"
    return [
        ("complete at model state", [figure(view.complete, "d") for view in views]),
        *_latencies(Lane.EXPRESS, views),
        *_latencies(Lane.BULK, views),
        ("rows/s", [figure(view.rows_a_second, ",.0f") for view in views]),
        ("lane records behind", [figure(_lag(view), ",.0f") for view in views]),
        ("rows that wait for bandwidth", [figure(view.pending.rows if view.pending else None, ",d") for view in views]),
        ("AUC with live rows", [figure(found.auc_live, ".4f") for found in runs]),
        (f"AUC with {older}", [figure(found.auc_stale, ".4f") for found in runs]),
        ("log loss with live rows", [figure(found.log_loss_live, ".4f") for found in runs]),
        (f"log loss with {older}", [figure(found.log_loss_stale, ".4f") for found in runs]),
        ("rankings served", [figure(view.serving.requests, ",d") for view in views]),
        ("lookup of a ranking, p50 ms", [figure(view.serving.lookup_ms_p50, ".2f") for view in views]),
        ("lookup of a ranking, p99 ms", [figure(view.serving.lookup_ms_p99, ".2f") for view in views]),
    ]


def _latencies(lane: Lane, views: Iterable[RegionView]) -> list[tuple[str, list[str]]]:
    found = [(figures and figures.latency) or Percentiles(0) for figures in (view.lanes.get(lane) for view in views)]
    return [
        (f"publish to readable, {lane}, p50 ms", [figure(each.p50, ".1f") for each in found]),
        (f"publish to readable, {lane}, p99 ms", [figure(each.p99, ".1f") for each in found]),
    ]


def _lag(view: RegionView) -> float | None:
    return sum(figures.lag for figures in view.lanes.values()) if view.lanes else None


class LiveTable:
    """Redraws the table as long as the trainer runs; a context manager."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._opened = ExitStack()
        self._regions: Regions | None = None
        self._due_s = 0.0

    def __enter__(self) -> Self:
        self._opened.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def watch(self, plan: DemoPlan, supervisor: Supervisor) -> None:
        """Redraw if it is time."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + REDRAW_S
        if self._regions is None:
            self._regions = self._opened.enter_context(closing(Regions(plan)))
        trainer, regions = self._regions.look()
        self._live.update(render(trainer, regions, supervisor.restarts(), plan.refresh_s), refresh=True)


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
