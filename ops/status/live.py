"""A frame of `ekko top`: what `ekko status` shows, and beside it what the processes measure."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ekko.ops.figures import figure
from ekko.ops.status.facts import Facts
from ekko.ops.status.sample import LaneKey, Sample
from ekko.ops.status.signals import WINDOW_S
from ekko.ops.status.view import as_data
from ekko.schemas.errors import EkkoError

Rows = list[dict[str, str]]
Frame = Callable[[Sample | None], tuple[Sample, Group]]
"""Makes the next frame, with rates since the sample given."""


def render(facts: Facts, sample: Sample, earlier: Sample | None, now_us: int) -> Group:
    """The tables; rates are those since the ``earlier`` sample, ages as of ``now_us``, microseconds since 1970."""
    told = {
        name: [{key: str(cell) for key, cell in row.items()} for row in rows]
        for name, rows in as_data(facts, now_us).items()
    }
    told["lanes: publish to readable since the replica's start"] = list(lanes(sample, earlier))
    told["fan-outs: what waits for bandwidth"] = list(waiting(sample))
    told[f"quality, last {WINDOW_S:.0f} s: live rows beside the older ones of the baseline"] = list(qualities(sample))
    tables = [_table(name, rows) for name, rows in told.items() if rows]
    silent = f"no answer from {', '.join(sample.silent)}" if sample.silent else ""
    return Group(*tables, Text(silent, style="bold red"))


def lanes(sample: Sample, earlier: Sample | None) -> Iterator[dict[str, str]]:
    """A row for each lane of each model at each replica."""
    for key, figures in sorted(sample.lanes.items()):
        latency = figures.latency
        yield {
            "region": key.region,
            "replica": key.replica,
            "model": key.model,
            "lane": key.lane,
            "p50 ms": figure(latency.p50 if latency else None, ".1f"),
            "p99 ms": figure(latency.p99 if latency else None, ".1f"),
            "rows/s": figure(rate(key, sample, earlier), ",.0f"),
            "lag records": figure(figures.lag, ",.0f"),
        }


def rate(key: LaneKey, sample: Sample, earlier: Sample | None) -> float | None:
    """Rows a second since the earlier sample; None without one, or if the replica was started again in between."""
    before = earlier.lanes.get(key) if earlier is not None else None
    if before is None or earlier is None or sample.at_s <= earlier.at_s:
        return None
    applied = sample.lanes[key].rows - before.rows
    return applied / (sample.at_s - earlier.at_s) if applied >= 0 else None


def waiting(sample: Sample) -> Iterator[dict[str, str]]:
    """A row for each model in each region whose fan-outs were heard."""
    for (region, model), figures in sorted(sample.pending.items()):
        yield {
            "region": region,
            "model": model,
            "pending rows": figure(figures.rows, ",d"),
            "pending MB": figure(figures.nbytes / 1e6, ",.1f"),
        }


def qualities(sample: Sample) -> Iterator[dict[str, str]]:
    """A row for each metric that serving or a trainer reports of a model in a region: means, and of how many."""
    for key, found in sorted(sample.quality.items()):
        live, baseline = found.live, found.baseline
        yield {
            "model": key.model,
            "region": key.region,
            "metric": key.metric,
            "live": figure(live.mean if live.count else None, ".4f"),
            "baseline": figure(baseline.mean if baseline.count else None, ".4f"),
            "live samples": figure(live.count, ",.0f"),
            "baseline samples": figure(baseline.count, ",.0f"),
        }


def watch(console: Console, view: Group, sample: Sample, frame: Frame, every_s: float) -> None:
    """Show a frame, and the next one every so many seconds, until Ctrl-C; while brokers are away the last one stays."""
    told_s = time.monotonic()
    with suppress(KeyboardInterrupt), Live(view, console=console, auto_refresh=False, screen=True) as screen:
        while True:
            time.sleep(every_s)
            try:
                sample, view = frame(sample)
                told_s = time.monotonic()
            except (EkkoError, TimeoutError) as error:
                screen.update(Group(view, _no_news(error, time.monotonic() - told_s)), refresh=True)
            else:
                screen.update(view, refresh=True)


def _no_news(error: Exception, since_s: float) -> Text:
    return Text(f"nothing new for {since_s:.0f} s: {error}", style="bold red")


def _table(name: str, rows: Rows) -> Table:
    table = Table(*rows[0], title=name, title_justify="left", box=None)
    for row in rows:
        table.add_row(*row.values())
    return table
