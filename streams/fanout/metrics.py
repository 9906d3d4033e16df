"""What a fan-out process tells Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

ROWS = Counter("ekko_fanout_rows", "Rows sent to a lane.", ["region", "model", "lane"])
BLOCKS = Counter("ekko_fanout_blocks", "Lane records sent.", ["region", "model", "lane"])
BYTES = Counter("ekko_fanout_bytes", "Bytes sent to a lane, before compression.", ["region", "model", "lane"])
WIRE_BYTES = Gauge(
    "ekko_fanout_wire_bytes",
    "Bytes sent to the region's brokers since the last takeover, compressed; 0 without a bandwidth.",
    ["region", "model", "group"],
)
REJECTED = Counter("ekko_fanout_rejected", "Source records refused.", ["region", "model", "reason"])
PENDING_ROWS = Gauge("ekko_fanout_pending_rows", "Rows that wait for bandwidth.", ["region", "model", "group"])
PENDING_BYTES = Gauge("ekko_fanout_pending_bytes", "Memory of rows that wait.", ["region", "model", "group"])
PENDING_AGE = Gauge(
    "ekko_fanout_pending_age_seconds",
    "Age of the oldest delta that only waits for bandwidth; 0 if none waits.",
    ["region", "model", "group"],
)
BULK_MAX_AGE = Gauge("ekko_fanout_bulk_max_age_seconds", "The setting bulk_max_age_s.", ["region"])
FORGOTTEN = Gauge("ekko_fanout_forgotten_epochs", "Epochs to be computed again.", ["region", "model", "group"])
HELD = Gauge("ekko_fanout_held", "Source records that wait for the catalogue.", ["region", "model", "group"])
LAG = Gauge("ekko_fanout_lag_seconds", "Age of the newest source record taken.", ["region", "model", "group"])
HALTED = Gauge(
    "ekko_fanout_halted_shards", "Shards that stand still until a person acts.", ["region", "model", "group"]
)
FAILING = Gauge(
    "ekko_fanout_failing",
    "1 from a failure until a shard group is taken over again; the log says why.",
    ["region", "model", "group"],
)
TAKEOVERS = Counter("ekko_fanout_takeovers", "Times a shard group was taken over.", ["region", "model", "group"])
TRANSACTION_SECONDS = Histogram(
    "ekko_fanout_transaction_seconds",
    "From the first produce to the acknowledged commit.",
    ["region", "model"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)

_OF_A_GROUP = (WIRE_BYTES, PENDING_ROWS, PENDING_BYTES, PENDING_AGE, FORGOTTEN, HELD, LAG, HALTED, FAILING)


def count_block(region: str, model: str, lane: str, rows: int, size: int) -> None:
    """A lane record was sent: its rows, and its bytes before compression."""
    ROWS.labels(region, model, lane).inc(rows)
    BLOCKS.labels(region, model, lane).inc()
    BYTES.labels(region, model, lane).inc(size)


def forget(region: str, model: str, group: str) -> None:
    """A shard group is another instance's now, or gone: what it was like here is true no longer."""
    for gauge in _OF_A_GROUP:
        gauge.labels(region, model, group)
        gauge.remove(region, model, group)
