"""A region is founded in mid-life: an operator's `ekko region add`, killed at any moment and run again."""

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import Settled
from ekko.schemas.errors import ConnectionFailed, GapError
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.disk.manifest import decode_manifest, encode_manifest
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.donor_lanes import DonorLanes
from ekko.streams.fanout.seeding import Seed, ShardSeeding
from ekko.streams.log import Partition, TransactionalWriter
from ekko.streams.manager.history import read_states
from tests.simulation.durable import Disk
from tests.simulation.environment import CENTRAL, FOUNDED, Environment
from tests.simulation.machines import Machine
from tests.simulation.replica import Replica
from tests.simulation.retention import Retention

DONOR = "east"


class SeededReplica(Replica):
    """A replica of the founded region, restored from its seed."""

    def __init__(self, number: int, disk: Disk, shards: tuple[int, ...], environment: Environment) -> None:
        super().__init__(FOUNDED, number, shards, environment)
        self.disk = disk


class Founder(Machine):
    """Founds a region from a replica of the donor that owns every shard.

    What outlives its kills is what the command keeps on disk: the donor's snapshot, and the seed once it is made.

    Attributes:
        founded: the region works from here on, and nothing of the donor is needed any more.

    Args:
        seeded: called with the seed's disk once, before any fan-out may begin. opened: called once it may.
    """

    def __init__(
        self,
        environment: Environment,
        donor: Replica,
        retention: Retention,
        *,
        seeded: Callable[[Disk], None],
        opened: Callable[[], None],
    ) -> None:
        super().__init__("founder", environment)
        self.founded = False
        self._donor, self._retention = donor, retention
        self._seeded, self._opened = seeded, opened
        self._snapshot: Disk | None = None
        self._settled: dict[int, Settled] = {}
        self._seed_made = False
        self._catalogue: SharedCatalogue | None = None

    @property
    def begun(self) -> bool:
        """Whether it must be finished."""
        return self._snapshot is not None

    @property
    def begins(self) -> dict[int, int]:
        """By shard, the source offset from which on the founded region's fan-outs work."""
        return {shard: settled.offset for shard, settled in self._settled.items()}

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        self._catalogue = SharedCatalogue(self.environment.connect(CENTRAL, self.doom))
        self._catalogue.refresh()

    def work(self, now_s: float) -> bool:
        """See `Machine.work`."""
        del now_s
        if self.founded:
            return False
        assert self._catalogue is not None
        self._catalogue.refresh()
        model = self._catalogue.model(self.environment.scenario.model)
        if self._snapshot is None:
            self._take_snapshot(model)
            return self._snapshot is not None
        self._found(model, self._declare())
        return True

    def crash(self) -> None:
        """See `Machine.crash`."""
        self._catalogue = None

    def _take_snapshot(self, model: ModelDeclaration) -> None:
        assert self._catalogue is not None
        if self._donor.disk.manifest is None:
            return
        state = decode_manifest(self._donor.disk.manifest).state
        if min(position.complete for position in state.shards.values()) == 0:
            return  # without a complete state all of the lanes would be needed
        published = read_states(self.environment.connect(CENTRAL, self.doom), self._catalogue, model)
        if any(position.complete not in published for position in state.shards.values()):
            return
        for shard, position in state.shards.items():
            chosen = published[position.complete]
            self._settled[shard] = Settled(chosen.offsets[shard] + 1, chosen.epoch, chosen.generation)
        if not self._within_retention(model, state):
            return
        self._retention.hold(FOUNDED)
        self._snapshot = copy.deepcopy(self._donor.disk)
        self.environment.log(f"a snapshot of {self._donor.name} is taken")

    def _within_retention(self, model: ModelDeclaration, state: ReplicaState) -> bool:
        """Whether the logs reach back to a snapshot, which the command looks at before it changes anything."""
        sources = {Partition(topics.deltas(model.name), shard): at.offset - 1 for shard, at in self._settled.items()}
        bounds = self.environment.connect(CENTRAL, self.doom).bounds(sources)
        if any(bounds[partition].low > needed for partition, needed in sources.items()):
            return False
        try:
            for shard in state.shards:
                self._lanes(model, state, shard).find_starts()
        except GapError:
            return False
        return True

    def _lanes(self, model: ModelDeclaration, state: ReplicaState, shard: int) -> DonorLanes:
        assert self._catalogue is not None
        donors, donor = self.environment.connect(DONOR, self.doom), self._catalogue.region(DONOR)
        return DonorLanes(donors, donor, model, self._catalogue, shard=shard, position=state.shards[shard])

    def _declare(self) -> RegionDeclaration:
        environment = self.environment
        bootstrap = FOUNDED if environment.scenario.own_brokers else ""
        wanted = Declarations((RegionDeclaration(FOUNDED, bootstrap, donor=DONOR),))
        declare(
            environment.connect(CENTRAL, self.doom), wanted, lambda region: environment.connect(region.name, self.doom)
        )
        assert self._catalogue is not None
        self._catalogue.refresh()
        return self._catalogue.region(FOUNDED)

    def _found(self, model: ModelDeclaration, region: RegionDeclaration) -> None:
        assert self._snapshot is not None
        assert self._snapshot.manifest is not None
        state = decode_manifest(self._snapshot.manifest).state
        positions = {shard: self._act(model, region, state, shard, open_it=False) for shard in state.shards}
        if not self._seed_made:
            self._make_seed(region, positions)
        for shard in state.shards:
            self._act(model, region, state, shard, open_it=True)
        self._retention.let_go()
        self.founded = True
        self.environment.log("founded")
        self._opened()

    def _act(
        self, model: ModelDeclaration, region: RegionDeclaration, state: ReplicaState, shard: int, *, open_it: bool
    ) -> ShardPosition:
        assert self._catalogue is not None
        regional = self.environment.connect(FOUNDED, self.doom)
        seed = Seed(shard, state.shards[shard], self._settled[shard], state.voids)
        lanes = self._lanes(model, state, shard)
        seeding = ShardSeeding(lanes, regional, region, model, self._catalogue, seed=seed)
        if seeding.is_open():
            return seeding.copy(None)
        assert model.incarnation is not None
        assert region.incarnation is not None
        identity = topics.fanout_transactional_id(
            model.name, model.incarnation, region.name, region.incarnation, shard % model.shard_groups
        )
        with closing(regional.transactional_writer(identity)) as writer:
            return _acted(seeding, writer, open_it=open_it)

    def _make_seed(self, region: RegionDeclaration, positions: dict[int, ShardPosition]) -> None:
        assert self._snapshot is not None
        assert self._snapshot.manifest is not None
        assert region.incarnation is not None
        seed, manifest = copy.deepcopy(self._snapshot), decode_manifest(self._snapshot.manifest)
        state = replace(manifest.state, region_incarnation=region.incarnation, shards=positions)
        seed.manifest = encode_manifest(replace(manifest, state=state))
        self._seed_made = True
        self._seeded(seed)


def _acted(seeding: ShardSeeding, writer: TransactionalWriter, *, open_it: bool) -> ShardPosition:
    position = seeding.copy(writer)
    if open_it:
        seeding.open(writer)
    if not seeding.is_visible(position) or (open_it and not seeding.is_open()):
        raise ConnectionFailed("committed, and not seen yet")  # the command waits here
    return position
