"""What the monitor concludes from signals: pure functions, with time and window sums as arguments.

The windows themselves are Faust's (`streams.monitor.app`); nothing exact rests on them. A silent monitor only means
that fan-outs score with older shares.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import FormatError
from ekko.schemas.signals import Shares, Signal

LIVE = "live"


class Measure(StrEnum):
    """What is summed up a model and window."""

    REQUESTS = "requests"
    GRADIENT_SUM = "gradient_sum"
    GRADIENT_COUNT = "gradient_count"


Total = Callable[[str, Measure], float]
"""The sum of a model's measure over the window that ends now."""


def contributions(signal: Signal) -> list[tuple[Measure, float]]:
    """What a signal adds to the windows of its model; nothing if it is no concern of the shares.

    `requests` counts lookups that serving asked for; `gradient_norm` is the sum of l1 norms of `count` row updates, in
    parameter units.

    Raises:
        FormatError: a value or count that no honest source sends (not finite, negative).
    """
    if not 0 <= signal.value < float("inf") and signal.metric in ("requests", "gradient_norm"):
        raise FormatError(f"signal {signal.metric} of model {signal.model}: value {signal.value}")
    if signal.count < 0:
        raise FormatError(f"signal {signal.metric} of model {signal.model}: count {signal.count}")
    if signal.metric == "requests" and signal.cohort == LIVE:
        return [(Measure.REQUESTS, signal.value)]
    if signal.metric == "gradient_norm":
        return [(Measure.GRADIENT_SUM, signal.value), (Measure.GRADIENT_COUNT, float(signal.count))]
    return []


def shares(models: Mapping[str, ModelDeclaration], total: Total, now_us: int) -> list[Shares]:
    """The shares of every model of which anything was heard within the window.

    `request_share` is c_m / sum c (Ekko, section 4), or an equal part of 1 while nobody counts requests;
    `mean_gradient` is 0 while it is unknown.
    """
    requests = {name: total(name, Measure.REQUESTS) for name in models}
    updates = {name: total(name, Measure.GRADIENT_COUNT) for name in models}
    everything = sum(requests.values())
    return [
        Shares(
            model=name,
            incarnation=declaration.incarnation or 0,
            request_share=requests[name] / everything if everything else 1 / len(models),
            mean_gradient=total(name, Measure.GRADIENT_SUM) / updates[name] if updates[name] else 0.0,
            written_us=now_us,
        )
        for name, declaration in models.items()
        if everything or updates[name]
    ]


def table_key(model: str, measure: Measure) -> str:
    """Key of a window sum."""
    return f"{model}/{measure}"


def needs_restart(subscribed: Iterable[str], declared: Iterable[str]) -> bool:
    """Whether models have come or gone since the monitor subscribed to their signals."""
    return set(subscribed) != set(declared)
