"""Prometheus metrics of a store process, in a registry of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ekko.schemas.blocks import Lane
from ekko.streams.applier.latency import LatencyRecorder

_UPDATE_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LOOKUP_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0)


class StoreMetrics:
    """What GET /metrics shows; also the server's observer of lookups."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        lane = ("model", "lane")
        self.rows = self._counter("ekko_store_applied_rows", "Row deltas applied.", lane)
        self.blocks = self._counter("ekko_store_applied_blocks", "Lane blocks applied, their publish time known.", lane)
        self.latency = Histogram(
            "ekko_store_update_latency_seconds",
            "Publish call to row readable here, one observation a lane block; catching up after a start is left out.",
            lane,
            buckets=_UPDATE_SECONDS,
            registry=self.registry,
        )
        self.lag = self._gauge("ekko_store_lag_records", "Offsets between the applied position and the end.", lane)
        self.foreign = self._gauge("ekko_store_foreign_records", "Lane records skipped as none of ours.", ("model",))
        self.halted = self._gauge("ekko_store_halted", "1 for a shard that stands still.", ("model", "shard"))
        self.healthy = self._gauge("ekko_store_healthy", "1 while GET /health says so.", ())
        self.stopped = self._gauge(
            "ekko_store_stopped",
            "1 while a whole model stands still: --memory is used up, or it cannot undo.",
            ("model",),
        )
        self.unwritable = self._gauge("ekko_store_unwritable", "1 while the last flush has failed.", ("model",))
        self.ready = self._gauge("ekko_store_ready", "1 once a model has caught up.", ("model",))
        self.complete = self._gauge("ekko_store_complete_state", "Last complete model state.", ("model",))
        self.memory = self._gauge("ekko_store_memory_bytes", "Memory of rows, index and journals.", ("model",))
        self.memory_limit = self._gauge("ekko_store_memory_limit_bytes", "The setting --memory, of each model.", ())
        self.overflows = self._gauge(
            "ekko_store_overflowed_rows", "Rows whose values wrapped around since the start.", ("model", "table")
        )
        self.signals_dropped = self._gauge("ekko_store_signals_dropped", "Signals that could not be passed on.", ())
        self.lookups = Histogram(
            "ekko_store_lookup_seconds",
            "Time to answer a lookup in the server.",
            ("model",),
            buckets=_LOOKUP_SECONDS,
            registry=self.registry,
        )
        self.lookup_keys = self._counter("ekko_store_lookup_keys", "Keys looked up.", ("model",))

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def forget(self) -> None:
        """A model is gone: what was said of models is said anew of those that are left, within a second."""
        of_a_model = (self.ready, self.stopped, self.unwritable, self.complete, self.memory, self.foreign)
        for gauge in (*of_a_model, self.lag, self.halted, self.overflows):
            gauge.clear()

    def looked_up(self, model: str, keys: int, seconds: float) -> None:
        """See `storage.lookups.LookupObserver`."""
        self.lookups.labels(model).observe(seconds)
        self.lookup_keys.labels(model).inc(keys)


class ModelMetrics:
    """One model's observer of what is applied (see `streams.applied.AppliedObserver`)."""

    def __init__(self, metrics: StoreMetrics, model: str) -> None:
        self.latency = LatencyRecorder(model)
        self._rows = {lane: metrics.rows.labels(model, lane) for lane in Lane}
        self._blocks = {lane: metrics.blocks.labels(model, lane) for lane in Lane}
        self._seconds = {lane: metrics.latency.labels(model, lane) for lane in Lane}

    def applied(self, lane: Lane, rows: int, latencies_ms: list[float], *, recovering: bool) -> None:
        """Count rows and blocks, and observe their latencies."""
        self._rows[lane].inc(rows)
        self._blocks[lane].inc(len(latencies_ms))
        self.latency.observe(lane, latencies_ms, recovering=recovering)
        if not recovering:
            for latency_ms in latencies_ms:
                self._seconds[lane].observe(latency_ms / 1e3)
