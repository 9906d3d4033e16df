"""A replica: the product's applier and store engine on a disk in memory that outlives it."""

from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import EkkoError, NotReady
from ekko.schemas.replicas import Member, ReplicaState
from ekko.storage.disk import flush
from ekko.storage.disk.manifest import decode_manifest
from ekko.storage.store import Store
from ekko.streams.applier import Applier
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Output, Partition
from tests.simulation.durable import Disk, MemoryDurable
from tests.simulation.environment import Environment
from tests.simulation.machines import Machine

MEMORY_BYTES = 1 << 20
COPIED_AT_ONCE = 4
"""Rows and journal entries that a flush copies in a step: it takes several, and much comes in between."""


class Replica(Machine):
    """One replica of the scenario's model, owning some of its shards.

    Attributes:
        reached: by shard, the highest state at which it has ever been complete, for the checks.
    """

    def __init__(self, region: str, number: int, shards: tuple[int, ...], environment: Environment) -> None:
        super().__init__(f"replica {region}-{number}", environment)
        self.region, self.shards = region, shards
        self.disk = Disk()
        self.snapshot: Disk | None = None
        self.reached = dict.fromkeys(shards, 0)
        self._applier: Applier | None = None
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The engine, while it is up."""
        assert self._store is not None, f"{self.name} is down"
        return self._store

    @property
    def state(self) -> ReplicaState:
        """The version vector that its rows contain, while it is up."""
        assert self._applier is not None, f"{self.name} is down"
        return self._applier.state

    @property
    def served(self) -> int | None:
        """The state that its readers get, None for live rows, while it is up."""
        assert self._applier is not None, f"{self.name} is down"
        return self._applier.served

    @property
    def durable(self) -> list[ReplicaState | None]:
        """The version vectors on disk: its own, and that of its snapshot."""
        return [_vector(disk) for disk in (self.disk, self.snapshot) if disk is not None]

    def take_snapshot(self) -> None:
        """Keep a copy of what is on disk."""
        if self.disk.manifest is not None:
            self.environment.log(f"{self.name}: snapshot")
            self.snapshot = deepcopy(self.disk)

    def rewind(self) -> None:
        """Stop it and put the snapshot back: it reads the lanes again from there, with what is void left out."""
        if self.snapshot is not None:
            self.kill()
            self.environment.log(f"{self.name}: rewound")
            self.disk, self.snapshot = self.snapshot, None

    @property
    def tables(self) -> list[str]:
        """Tables that it knows."""
        assert self._applier is not None, f"{self.name} is down"
        return [table.name for table in self._applier.model.tables]

    def checksums(self, as_of: int | None) -> dict[str, int]:
        """Checksum of every table that is not empty."""
        found = {table: self.store.checksum(table, as_of) for table in self.tables}
        return {table: value for table, value in found.items() if value}

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        environment = self.environment
        cluster = environment.connect(self.region, self.doom)
        catalogue = Catalogue(cluster)
        catalogue.refresh()
        if environment.scenario.model not in catalogue.models or self.region not in catalogue.regions:
            raise NotReady("the catalogue is not mirrored yet")
        model, region = catalogue.model(environment.scenario.model), catalogue.region(self.region)
        assert region.incarnation is not None
        self._store = Store.open(
            Path(self.name),
            model,
            self.shards,
            region_incarnation=region.incarnation,
            memory_bytes=MEMORY_BYTES,
            durable=MemoryDurable(self.disk, self.doom),
        )
        self._applier = Applier(cluster, region, model, self._store, catalogue, clock=environment.clock)
        self._writer = cluster.writer()
        self._announce_at_s = 0.0

    def work(self, now_s: float) -> bool:
        """See `Machine.work`."""
        assert self._applier is not None
        with patch.object(flush, "_COPIED_AT_ONCE", COPIED_AT_ONCE):
            done = self._applier.step(now_s)
        halts = [*self._applier.halted.values()]
        self.environment.watch(self.name, halts if self._applier.stopped is None else [*halts, self._applier.stopped])
        memory = self.store.memory_bytes()
        assert memory <= MEMORY_BYTES, f"{self.name}: {memory} bytes are held, {MEMORY_BYTES} allowed"
        for shard, position in self._applier.state.shards.items():
            self.reached[shard] = max(self.reached[shard], position.complete)
        if now_s >= self._announce_at_s:
            self._announce_at_s = now_s + 0.2
            self._announce(self._applier, int(now_s * 1e6))
        return done

    def _announce(self, applier: Applier, now_us: int) -> None:
        """Tell the managers where it stands; what is lost on the way is told again."""
        recoverable = self.store.recoverable
        member = Member(
            *(self.region, self.name, "nowhere:1"),
            ready=applier.ready,
            started_us=now_us,
            written_us=now_us,
            models=(applier.state,),
            durable=() if recoverable is None else (recoverable,),
            undone=applier.undone,
        )
        with suppress(EkkoError):
            self._writer.send(Output(Partition(topics.members(self.region), 0), encode(member), self.name.encode()))
            self._writer.flush(0.0)

    def crash(self) -> None:
        """See `Machine.crash`."""
        self._applier = self._store = None


def _vector(disk: Disk) -> ReplicaState | None:
    return None if disk.manifest is None else decode_manifest(disk.manifest).state
