"""What is measured at one moment: replicas are asked over HTTP, fan-outs and serving are heard in the signals."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import NamedTuple
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from ekko.ops.status.facts import Facts
from ekko.ops.status.signals import Pending, Quality, QualityKey, pending, quality
from ekko.schemas.blocks import Lane
from ekko.schemas.errors import EkkoError
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
class Sample:
    """Everything at one moment.

    Attributes:
        at_s: when, by `time.monotonic`.
        lanes: what replicas tell; those that do not answer are missing.
        quality: of the last WINDOW_S, by model, region and metric.
        pending: what waits at fan-outs, by region and model.
        silent: addresses that did not answer.
    """

    at_s: float
    lanes: Mapping[LaneKey, LaneFigures]
    quality: Mapping[QualityKey, Quality] = field(default_factory=dict)
    pending: Mapping[tuple[str, str], Pending] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


def read_sample(facts: Facts) -> Sample:
    """Ask every replica that announces itself, and make figures of the signals that were heard."""
    lanes: dict[LaneKey, LaneFigures] = {}
    silent: list[str] = []
    declared = {model.model.name for model in facts.models}
    for member in (member for region in facts.regions for member in region.members):
        models = sorted(declared.intersection(state.model for state in member.models))
        try:
            lanes |= ask_replica(member.region, member.replica, member.address, models)
        except (OSError, HTTPException, EkkoError):
            silent.append(member.address)
    return Sample(time.monotonic(), lanes, quality(facts.heard), pending(facts.heard), tuple(silent))


def ask_replica(region: str, replica: str, address: str, models: Iterable[str]) -> dict[LaneKey, LaneFigures]:
    """What a replica tells of the lanes of models that it holds.

    Raises:
        OSError, HTTPException, EkkoError: it does not answer in time, or is none.
    """
    values = metric_values(_metrics(address))
    found = {}
    for model in models:
        with StoreClient(region, model, stores=[address], timeout_s=TIMEOUT_S) as client:
            latency = client.latency()
        for lane, percentiles in ((Lane.EXPRESS, latency.express), (Lane.BULK, latency.bulk)):
            label = (("lane", str(lane)), ("model", model))
            rows = values.get(("ekko_store_applied_rows_total", label), 0.0)
            lag = values.get(("ekko_store_lag_records", label), 0.0)
            found[LaneKey(region, replica, model, lane)] = LaneFigures(rows, lag, percentiles)
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
