"""What a store process serves (`storage.served.Served`), over the models it runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConfigurationError, NotOwned, NotReady, StateUnavailable
from ekko.schemas.hashing import UInt64s, checksum, shard_of
from ekko.schemas.replicas import Member, ReplicaState
from ekko.schemas.signals import Signal
from ekko.storage.disk.snapshots import all_files
from ekko.storage.serving import row_stream
from ekko.storage.serving.served import Checksum, Health, Lookup, TakenSnapshot, UpdateLatency
from ekko.storage.store import Store
from ekko.streams.applier import Applier
from ekko.streams.replica.model_runner import ModelRunner

_CHECKSUM_TIMEOUT_S = 30.0
_SNAPSHOT_TIMEOUT_S = 60.0
"""For a flush of everything that is dirty."""


def without_runs(state: ReplicaState) -> ReplicaState:
    """The vector as others need it: which seqs lie ahead of the contiguous prefix concerns this replica only."""
    if not any(position.ahead for position in state.shards.values()):
        return state
    return replace(state, shards={shard: replace(position, ahead=()) for shard, position in state.shards.items()})


class _Published(NamedTuple):
    state: ReplicaState
    told: ReplicaState


class RegionServed:
    """Answers from any thread; what changes rows stays with the runners.

    Args:
        runners: model -> its runner; replaced by the process, never changed, when models come and go.
        members, relay, health: what the process itself knows.
    """

    def __init__(
        self,
        members: Callable[[], list[Member]],
        relay: Callable[[Signal], None],
        health: Callable[[], Health],
    ) -> None:
        self.runners: Mapping[str, ModelRunner] = {}
        self._members = members
        self._relay = relay
        self._health = health
        self._published: dict[str, _Published] = {}

    def models(self) -> list[ModelDeclaration]:
        """See `Served.models`."""
        return [_declaration(runner) for _, runner in sorted(self.runners.items())]

    def model(self, name: str) -> ModelDeclaration:
        """See `Served.model`."""
        return _declaration(self._runner(name))

    def lookup(
        self, model: str, table: str, keys: UInt64s, as_of: int | None = None, generation: int | None = None
    ) -> Lookup:
        """See `Served.lookup`."""
        store, applier = _ready(self._runner(model))
        state = applier.state  # read first: the rows may be newer than what is told, never older
        if generation is not None:
            _refuse_older(model, state, generation)
        elif as_of is None:
            as_of = applier.served
        applier.model.table(table)
        _refuse_missing(applier, state, keys)
        _refuse_incomplete(model, state, as_of)
        return Lookup(*store.lookup(table, keys, as_of), self._publish(state))

    def checksum(self, model: str, table: str, as_of: int | None = None) -> Checksum:
        """See `Served.checksum`; computed between two applies, which wait for it."""
        runner = self._runner(model)
        _ready(runner)[1].model.table(table)

        def add_up(store: Store, applier: Applier) -> Checksum:
            _refuse_incomplete(model, applier.state, as_of)
            total = count = 0
            for keys, rows in store.items(table, as_of):
                total += checksum(table, keys, rows)
                count += len(keys)
            return Checksum(total % (1 << 64), count, without_runs(applier.state))

        return runner.between_steps(add_up, _CHECKSUM_TIMEOUT_S)

    def rows(
        self, model: str, table: str, as_of: int, shards: tuple[int, ...] | None, idle_since: int | None = None
    ) -> Iterator[bytes]:
        """See `Served.rows`; applies wait only for the second reading, as for a checksum."""
        runner = self._runner(model)
        store, applier = _ready(runner)
        applier.model.table(table)
        count, held = applier.model.shards, tuple(sorted(applier.state.shards))
        wanted = held if shards is None else shards
        _refuse_shards(applier, applier.state, set(wanted))
        _refuse_incomplete(model, applier.state, as_of)
        store.lookup(table, np.empty(0, np.uint64), as_of)  # refuses a state that cannot be told any more

        def add_up(store: Store, _: Applier) -> row_stream.Total:
            return row_stream.add_up(table, row_stream.of_shards(store.items(table, as_of), wanted, count))

        def again() -> row_stream.Total:
            return runner.between_steps(add_up, _CHECKSUM_TIMEOUT_S)

        runs = row_stream.of_shards(store.items(table, as_of, idle_since=idle_since), wanted, count)
        return row_stream.encode_runs(table, runs, again if idle_since is None else None, f"rows of {model}/{table}")

    def take_snapshot(self, model: str) -> TakenSnapshot:
        """See `Served.take_snapshot`."""
        runner = self._runner(model)
        taken = runner.take_snapshot(_SNAPSHOT_TIMEOUT_S)
        files = {str(path.relative_to(taken.path)): path.stat().st_size for path in all_files(taken.path)}
        return TakenSnapshot(runner.folder.name, runner.region, taken.taken_s, taken.state.complete, files)

    def snapshot_file(self, model: str, taken_s: int, name: str) -> Path:
        """See `Served.snapshot_file`."""
        snapshot = self._runner(model).find_snapshot(taken_s)
        if snapshot is not None:
            for path in all_files(snapshot.path):  # a name is looked up, never joined to a path
                if str(path.relative_to(snapshot.path)) == name:
                    return path
        raise ConfigurationError(
            f"model {model} has no snapshot {taken_s} with a file {name!r} here", hint="take another one"
        )

    def latency(self, model: str) -> UpdateLatency:
        """See `Served.latency`."""
        return self._runner(model).metrics.latency.summary()

    def members(self) -> list[Member]:
        """See `Served.members`."""
        return self._members()

    def relay(self, signal: Signal) -> None:
        """See `Served.relay`."""
        self._relay(signal)

    def health(self) -> Health:
        """See `Served.health`."""
        return self._health()

    def _runner(self, model: str) -> ModelRunner:
        runner = self.runners.get(model)
        if runner is None:
            names = ", ".join(sorted(self.runners)) or "none"
            raise ConfigurationError(f"no model {model!r} here", hint=f"models: {names}")
        return runner

    def _publish(self, state: ReplicaState) -> ReplicaState:
        known = self._published.get(state.model)
        if known is None or known.state is not state:
            known = self._published[state.model] = _Published(state, without_runs(state))
        return known.told


def _declaration(runner: ModelRunner) -> ModelDeclaration:
    return runner.model if runner.applier is None else runner.applier.model


def _ready(runner: ModelRunner) -> tuple[Store, Applier]:
    store, applier = runner.store, runner.applier
    if store is None or applier is None or not applier.ready:
        why = "" if applier is None or applier.stopped is None else f": {applier.stopped.message}"
        raise NotReady(
            f"model {runner.model.name} has not caught up here yet{why}", hint="ask another replica, or wait"
        )
    return store, applier


def _refuse_missing(applier: Applier, state: ReplicaState, keys: UInt64s) -> None:
    """Refuse keys of shards that are held elsewhere, or whose rows here are not what they should be."""
    shards, unserved = applier.model.shards, applier.unserved
    if len(state.shards) == shards and not unserved:
        return
    _refuse_shards(applier, state, set(np.unique(shard_of(keys, shards)).tolist()))


def _refuse_shards(applier: Applier, state: ReplicaState, asked: set[int]) -> None:
    unserved = applier.unserved
    elsewhere = sorted(asked - state.shards.keys())
    if elsewhere:
        raise NotOwned(
            f"keys of shard(s) {elsewhere}, this replica holds {sorted(state.shards)}", hint="see /v1/members"
        )
    waiting = sorted(asked & unserved)
    if waiting:
        reasons = "; ".join(applier.halted[shard].message for shard in waiting if shard in applier.halted)
        raise NotReady(f"shard(s) {waiting} have not caught up here: {reasons}", hint="ask another replica")


def _refuse_older(model: str, state: ReplicaState, generation: int) -> None:
    """Refuse rows that still contain what a rollback has taken back: every rollback has left one void."""
    if len(state.voids) < generation:
        raise NotReady(
            f"model {model} has undone {len(state.voids)} of {generation} rollbacks here",
            hint="ask another replica, or wait",
        )


def _refuse_incomplete(model: str, state: ReplicaState, as_of: int | None) -> None:
    if as_of is not None and as_of > state.complete:
        raise StateUnavailable(
            f"model {model} is complete at state {state.complete} here, not at {as_of} yet",
            hint="ask for an older state, or wait",
        )
