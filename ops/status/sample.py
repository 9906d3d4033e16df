"""What stores and fan-outs measure themselves, asked over HTTP: latencies, row counters, lag, pending rows."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import NamedTuple
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from ekko.ops.status.facts import Facts
from ekko.schemas.blocks import Lane
from ekko.schemas.errors import EkkoError
from ekko.schemas.replicas import Member
from ekko.storage.client import StoreClient
from ekko.storage.serving.served import Percentiles

TIMEOUT_S = 0.5
"""A process that is slower to answer is shown as a gap: the view goes on."""


class LaneKey(NamedTuple):
    """A lane of a model at one replica."""

    region: str
    replica: str
    model: str
    lane: Lane


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """What a replica has applied from a lane since its start.

    Attributes:
        rows: row deltas.
        lag: records behind the lane's end.
        latency: publish call to readable; None if it was not told.
    """

    rows: float
    lag: float
    latency: Percentiles | None


@dataclass(frozen=True, slots=True)
class FanoutFigures:
    """What a region's fan-outs tell of a model: rows that wait, and the age in seconds of the last record taken."""

    pending_rows: float = 0.0
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything at one moment.

    Attributes:
        at_s: when, by `time.monotonic`.
        lanes: what replicas tell; those that do not answer are missing.
        fanouts: by region and model.
        silent: addresses that did not answer.
    """

    at_s: float
    lanes: Mapping[LaneKey, LaneFigures]
    fanouts: Mapping[tuple[str, str], FanoutFigures] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


def read_sample(facts: Facts, fanouts: Sequence[str]) -> Sample:
    """Ask every replica that announces itself, and the fan-outs at ``fanouts`` (host:port of their metrics)."""
    lanes: dict[LaneKey, LaneFigures] = {}
    silent: list[str] = []
    for member in (member for region in facts.regions for member in region.members):
        try:
            lanes |= _lanes(member, [model.model.name for model in facts.models])
        except (OSError, HTTPException, EkkoError):
            silent.append(member.address)
    told: list[Mapping[tuple[str, str], FanoutFigures]] = []
    for address in fanouts:
        try:
            told.append(fanout_figures(_metrics(address)))
        except (OSError, HTTPException):
            silent.append(address)
    return Sample(time.monotonic(), lanes, _united(told), tuple(silent))


def _lanes(member: Member, models: Iterable[str]) -> dict[LaneKey, LaneFigures]:
    values = metric_values(_metrics(member.address))
    held = {state.model for state in member.models}
    found = {}
    for model in models:
        if model not in held:
            continue
        with StoreClient(member.region, model, stores=[member.address], timeout_s=TIMEOUT_S) as client:
            latency = client.latency()
        for lane, percentiles in ((Lane.EXPRESS, latency.express), (Lane.BULK, latency.bulk)):
            label = (("lane", str(lane)), ("model", model))
            rows = values.get(("ekko_store_applied_rows_total", label), 0.0)
            lag = values.get(("ekko_store_lag_records", label), 0.0)
            found[LaneKey(member.region, member.replica, model, lane)] = LaneFigures(rows, lag, percentiles)
    return found


def _metrics(address: str) -> str:
    with urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as answer:
        return str(answer.read().decode())


def metric_values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples of a metrics page by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def fanout_figures(text: str) -> dict[tuple[str, str], FanoutFigures]:
    """By region and model, from a fan-out's metrics page: rows of all groups, the lag of the slowest."""
    rows: dict[tuple[str, str], float] = defaultdict(float)
    lags: dict[tuple[str, str], float] = defaultdict(float)
    for (name, pairs), value in metric_values(text).items():
        labels = dict(pairs)
        key = (labels.get("region", ""), labels.get("model", ""))
        if name == "ekko_fanout_pending_rows":
            rows[key] += value
        elif name == "ekko_fanout_lag_seconds":
            lags[key] = max(lags[key], value)
    return {key: FanoutFigures(rows[key], lags[key]) for key in rows.keys() | lags.keys()}


def _united(told: Iterable[Mapping[tuple[str, str], FanoutFigures]]) -> dict[tuple[str, str], FanoutFigures]:
    """Several instances of a region share its groups."""
    united: dict[tuple[str, str], FanoutFigures] = {}
    for figures in told:
        for key, each in figures.items():
            known = united.get(key, FanoutFigures())
            united[key] = FanoutFigures(known.pending_rows + each.pending_rows, max(known.lag_s, each.lag_s))
    return united
