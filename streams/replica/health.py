"""How a store process is: what GET /health and the metrics say, and when it gives up."""

import logging
import time
from collections.abc import Mapping, Sequence

from ekko.schemas.errors import EkkoError, TopicMissing
from ekko.storage.serving.served import Health
from ekko.streams.log import Bounds, Cluster, Partition
from ekko.streams.replica.metrics import StoreMetrics
from ekko.streams.replica.model_runner import ModelRunner
from ekko.streams.replica.watch import Watchdog, lags, lane_partitions, progress

_log = logging.getLogger("ekko.store")

_LOOK_S = 1.0
"""How often the brokers are asked for the ends of the lanes."""

_GIVE_UP_AFTER = 3.0
"""So many times `stall_s` without progress, and the process ends, to be started anew."""


class StoreHealth:
    """Judges from outside the apply threads, so that one that hangs is noticed.

    Attributes:
        told: the last judgement; replaced, never changed.
    """

    def __init__(self, cluster: Cluster, region: str, metrics: StoreMetrics, stall_s: float) -> None:
        self.told = Health(healthy=True, ready=False)
        self._cluster = cluster
        self._region = region
        self._metrics = metrics
        self._stall_s = stall_s
        self._watchdog = Watchdog(stall_s)
        self._looked_s = -_LOOK_S
        self._stalls: dict[str, str] = {}
        self._missing_s: dict[str, float] = {}
        self._first: frozenset[str] | None = None

    def update(self, runners: Mapping[str, ModelRunner], remarks: Sequence[str], signals_dropped: int) -> None:
        """Look again.

        Args:
            remarks: what is strange but makes nobody unhealthy.

        Raises:
            EkkoError: a model has stood still for far too long for no reason that is told, or its topics are gone.
        """
        if self._first is None:
            self._first = frozenset(runners)
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._looked_s = time.monotonic()
            self._look(runners)
            self._metrics.signals_dropped.set(signals_dropped)
        waiting = [name for name, runner in sorted(runners.items()) if not _is_ready(runner)]
        problems = [*self._stalls.values(), *_problems(runners)]
        self.told = Health(
            healthy=not problems,
            ready=not self._first.intersection(waiting),
            problems=(*problems, *remarks),
            halted=_halted(runners),
            waiting=tuple(waiting),
        )
        self._metrics.healthy.set(self.told.healthy)

    def forget(self, model: str) -> None:
        """The model is gone."""
        self._watchdog.forget(model)
        self._stalls.pop(model, None)
        self._missing_s.pop(model, None)
        self._metrics.forget()

    def _look(self, runners: Mapping[str, ModelRunner]) -> None:
        for name, runner in runners.items():
            if runner.applier is None:  # its store is being opened
                self._metrics.ready.labels(name).set(0)
                continue
            try:
                bounds = self._cluster.bounds(lane_partitions(runner.applier.state, self._region))
            except TopicMissing as error:  # a reader notices only after half a minute
                self._judge_missing(name, error)
            except EkkoError as error:
                _log.warning("model %s: the ends of its lanes are not known: %s", name, error)
            else:
                self._missing_s.pop(name, None)
                self._judge(name, runner, self._measure(name, runner, bounds))

    def _judge_missing(self, name: str, error: TopicMissing) -> None:
        """A deleted model's topics may go before its end is read; those of a live one must be there."""
        self._stalls[name] = f"model {name}: {error.message}"
        if time.monotonic() - self._missing_s.setdefault(name, time.monotonic()) > self._stall_s:
            raise error

    def _measure(self, name: str, runner: ModelRunner, bounds: Mapping[Partition, Bounds]) -> int:
        """The model's lag; that and what else there is to tell is noted in the metrics."""
        applier, store, metrics = runner.applier, runner.store, self._metrics
        assert applier is not None
        assert store is not None
        state, halted = applier.state, applier.halted
        found = lags(state, self._region, bounds, halted)
        for lane, lag in found.items():
            metrics.lag.labels(name, lane).set(lag)
        for shard in state.shards:
            metrics.halted.labels(name, str(shard)).set(shard in halted)
        for table, (count, _) in store.overflows.items():
            metrics.overflows.labels(name, table).set(count)
        metrics.foreign.labels(name).set(applier.foreign)
        metrics.ready.labels(name).set(applier.ready)
        metrics.stopped.labels(name).set(applier.stopped is not None)
        metrics.unwritable.labels(name).set(applier.unwritable is not None)
        metrics.complete.labels(name).set(state.complete)
        metrics.memory.labels(name).set(store.memory_bytes())
        return sum(found.values())

    def _judge(self, name: str, runner: ModelRunner, lag: int) -> None:
        assert runner.applier is not None
        done = progress(runner.applier.state)
        still_s = self._watchdog.stalled_s(name, done, lag, runner.stepped_s, time.monotonic())
        if not still_s or runner.applier.stopped is not None:
            self._stalls.pop(name, None)
            return
        if name not in self._stalls:
            # Seen once: after its broker had come back, a consumer fetched nothing any more, and said nothing.
            runner.applier.read_anew()
        self._stalls[name] = f"model {name} has made no progress for {still_s:.0f} s, {lag} offsets behind"
        _log.error("%s", self._stalls[name])
        if still_s > _GIVE_UP_AFTER * self._stall_s:
            raise EkkoError(self._stalls[name], hint="start the store anew: nothing is lost; see the log for the cause")


def _is_ready(runner: ModelRunner) -> bool:
    return runner.applier is not None and runner.applier.ready


def _halted(runners: Mapping[str, ModelRunner]) -> dict[str, str]:
    return {
        f"{name}/{shard}": error.message
        for name, runner in sorted(runners.items())
        if runner.applier is not None
        for shard, error in sorted(runner.applier.halted.items())
    }


def _problems(runners: Mapping[str, ModelRunner]) -> list[str]:
    problems = []
    for name, runner in sorted(runners.items()):
        applier = runner.applier
        if applier is not None and applier.stopped is not None:
            problems.append(f"model {name} stands still: {applier.stopped.message}")
        if applier is not None and applier.unwritable is not None:
            problems.append(f"model {name} cannot be made durable: {applier.unwritable.message}")
    return problems
