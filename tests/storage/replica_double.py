"""A `Served` over plain dicts, for tests of the server and the client: the rows of some shards of one model."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.errors import ConfigurationError, NotOwned, NotReady, StateUnavailable
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.replicas import Member, ReplicaState, ShardPosition
from ekko.schemas.signals import Signal
from ekko.storage.serving.served import Checksum, Health, Lookup, Percentiles, TakenSnapshot, UpdateLatency
from ekko.storage.serving.server import build_app
from ekko.storage.serving.server_thread import ServerThread

TABLES = (
    TableDeclaration("embedding", 3, 24, "uniform", 0.5, 7),
    TableDeclaration("bias", 1, 16),
)
MODEL = ModelDeclaration("ctr", 4, 1, TABLES, incarnation=11)


class ReplicaDouble:
    """Row of key k in a table of dim d is [k, k + 1 ... k + d - 1] for the keys it was given, and absent else."""

    def __init__(
        self, shards: tuple[int, ...] = (0, 1, 2, 3), keys: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    ) -> None:
        self.shards = shards
        self.keys = np.array(keys, np.uint64)
        self.state = ReplicaState("ctr", 11, 12, {shard: ShardPosition(complete=5) for shard in shards})
        self.region_members: list[Member] = []
        self.signals: list[Signal] = []
        self.begun = 0
        self.asked: list[int] = []
        self.is_ready = True
        self.hang = threading.Event()
        self.hang.set()

    def models(self) -> list[ModelDeclaration]:
        return [MODEL]

    def model(self, name: str) -> ModelDeclaration:
        if name != "ctr":
            raise ConfigurationError(f"no model {name!r}", hint="known: ctr")
        return MODEL

    def lookup(
        self, model: str, table: str, keys: UInt64s, as_of: int | None = None, generation: int | None = None
    ) -> Lookup:
        if generation is not None and len(self.state.voids) < generation:
            raise NotReady("not undone yet")
        self.begun += 1
        self.hang.wait(120)
        self.asked.append(len(keys))
        declared = self.model(model).table(table)
        if not self.is_ready:
            raise NotReady("still reading")
        if as_of is not None and as_of > 5:
            raise StateUnavailable(f"not complete at {as_of} yet")
        if not np.isin(shard_of(keys, 4), self.shards).all():
            raise NotOwned("not mine")
        found = np.isin(keys, self.keys)
        rows = (keys[:, None].astype(np.int64) + np.arange(declared.dim)).astype(np.int32)
        rows[~found] = 0
        return Lookup(rows if as_of is None else rows * as_of, found, self.state)

    def checksum(self, model: str, table: str, as_of: int | None = None) -> Checksum:
        self.model(model).table(table)
        return Checksum(2**63 + (as_of or 0), len(self.keys), self.state)

    def take_snapshot(self, model: str) -> TakenSnapshot:
        self.model(model)
        return TakenSnapshot("ctr@11.east@12", "east", 17, 5, {Path(__file__).name: Path(__file__).stat().st_size})

    def snapshot_file(self, model: str, taken_s: int, name: str) -> Path:
        if (model, taken_s, name) != ("ctr", 17, Path(__file__).name):
            raise ConfigurationError(f"no such file: {name}")
        return Path(__file__)

    def latency(self, model: str) -> UpdateLatency:
        return UpdateLatency(model, Percentiles(2, 1.0, 1.0, 1.5), Percentiles(0), Percentiles(2), Percentiles(0))

    def members(self) -> list[Member]:
        return self.region_members

    def relay(self, signal: Signal) -> None:
        self.signals.append(signal)

    def health(self) -> Health:
        problems = () if self.is_ready else ("ctr: catching up",)
        return Health(True, self.is_ready, problems, waiting=() if self.is_ready else ("ctr",))

    def looked_up(self, model: str, keys: int, seconds: float) -> None:
        assert model == "ctr"
        assert keys >= 0
        assert seconds > 0

    def member(self, address: str) -> Member:
        return Member("east", f"replica-{address}", address, self.is_ready, 1, 2, (self.state,), (self.state,))


@contextmanager
def serving(replica: ReplicaDouble, port: int = 0) -> Iterator[str]:
    """A real HTTP server of `replica`; yields its host:port."""
    server = ServerThread("127.0.0.1", port)
    server.start(build_app(replica, replica, CollectorRegistry(), "east"))
    try:
        yield server.address
    finally:
        server.stop()
