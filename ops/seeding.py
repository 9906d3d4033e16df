"""One model's part of `ekko region add`: seeds in the new region's lanes, and snapshots for its replicas."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from ekko.ops.copying import shown
from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import ModelState, Settled
from ekko.schemas.errors import (
    CommitUncertain,
    ConnectionFailed,
    Fenced,
    GapError,
    StateUnavailable,
    TransactionAborted,
)
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.disk.data_folder import folder_name
from ekko.storage.disk.sealed import Sealed, copy_in, fresh_partial, read_sealed, seal
from ekko.storage.disk.snapshots import write_state
from ekko.storage.disk.transplant import transplant
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.donor_lanes import DonorLanes
from ekko.streams.fanout.seeding import Seed, ShardSeeding
from ekko.streams.log import Cluster, Partition, TransactionalWriter
from ekko.streams.manager.history import read_states

Tell = Callable[[str], None]
_ATTEMPTS = 5
_PAUSE_S = 0.1
_VISIBLE_S = 10.0


class _Place(NamedTuple):
    """A shard of the new region, and the donor's snapshot that it begins with."""

    regional: Cluster
    region: RegionDeclaration
    snapshot: Sealed
    shard: int


_Act = Callable[[ShardSeeding, TransactionalWriter | None], ShardPosition]


def _copied(seeding: ShardSeeding, writer: TransactionalWriter | None) -> ShardPosition:
    position = seeding.copy(writer)
    _wait(lambda: seeding.is_visible(position), "the copies")  # a store that saw less would think its log was cut
    return position


def _opened(seeding: ShardSeeding, writer: TransactionalWriter | None) -> ShardPosition:
    position = seeding.copy(writer)
    if writer is not None:
        seeding.open(writer)
        _wait(seeding.is_open, "the fan-out state")
    return position


def _wait(seen: Callable[[], bool], what: str) -> None:
    """Until what is committed is seen by readers."""
    deadline = time.monotonic() + _VISIBLE_S
    while not seen():
        if time.monotonic() > deadline:
            raise ConnectionFailed(
                f"{what} of the seed cannot be read {_VISIBLE_S:g} s after the commit", hint="run the command again"
            )
        time.sleep(_PAUSE_S)


class ModelSeeding:
    """Seeds one model.

    Args:
        snapshots: the donor's, every shard in one of them.

    Attributes:
        seeds: folders with the new region's snapshots of this model.
    """

    def __init__(
        self,
        central: Cluster,
        donors: Cluster,
        donor: RegionDeclaration,
        model: ModelDeclaration,
        catalogue: SharedCatalogue,
        *,
        snapshots: Sequence[Sealed],
    ) -> None:
        self.seeds: list[Path] = []
        self._central, self._donors, self._donor = central, donors, donor
        self._model, self._catalogue, self._snapshots = model, catalogue, snapshots
        self._states: dict[int, ModelState] = {}

    def check(self) -> None:
        """Look whether the logs reach back to the snapshots; changes nothing.

        Raises:
            GapError: they do not. StateUnavailable: the snapshots' state is not published.
        """
        self._states = read_states(self._central, self._catalogue, self._model)
        source = topics.deltas(self._model.name)
        for snapshot in self._snapshots:
            for shard in snapshot.state.shards:
                settled, partition = self._settled(snapshot, shard), Partition(source, shard)
                low = self._central.bounds([partition])[partition].low
                needed = max(0, settled.offset - 1)
                if low > needed:
                    raise GapError(
                        f"{source}[{shard}] begins at {low}, the snapshot needs offset {needed} "
                        f"({low - needed} offsets are gone); nothing was changed",
                        hint="take a newer snapshot of the donor",
                    )
                self._lanes(snapshot, shard).find_starts()

    def run(self, regional: Cluster, region: RegionDeclaration, folder: Path, tell: Tell) -> None:
        """Write the seeds, make the snapshots, and let the fan-out begin; harmless when repeated.

        Raises:
            GapError: as `check`; or the region was begun with another snapshot.
            Fenced, CommitUncertain, TransactionAborted: again and again.
        """
        for snapshot in self._snapshots:
            target = self._target(snapshot, region, folder)
            positions = {
                shard: self._with_writer(_Place(regional, region, snapshot, shard), _copied)
                for shard in sorted(snapshot.state.shards)
            }
            self.seeds.append(target.parent)
            if not target.exists():
                self._make(snapshot, region, positions, target)
            tell(f"seed {target}: {read_sealed(target).size / 1e6:,.1f} MB")
        for snapshot in self._snapshots:  # no fan-out begins before the snapshots are made
            for shard in sorted(snapshot.state.shards):
                self._with_writer(_Place(regional, region, snapshot, shard), _opened)
        tell(f"model {self._model.name}: {self._model.shards} shards seeded")

    def _with_writer(self, place: _Place, act: _Act) -> ShardPosition:
        """Act as the shard's only writer; after a commit of unknown fate all is looked at anew."""
        passing = retry_if_exception_type((Fenced, CommitUncertain, TransactionAborted))
        turns = Retrying(retry=passing, stop=stop_after_attempt(_ATTEMPTS), wait=wait_fixed(_PAUSE_S), reraise=True)
        for turn in turns:
            with turn:
                seeding = self._seeding(place)
                if seeding.is_open():  # its fan-out may work already, and is not to be fenced
                    return act(seeding, None)
                writer = place.regional.transactional_writer(self._identity(place))
                try:
                    return act(seeding, writer)
                finally:
                    writer.close()
        raise AssertionError("the last attempt raises")

    def _identity(self, place: _Place) -> str:
        model, region = self._model, place.region
        assert model.incarnation is not None
        assert region.incarnation is not None
        group = place.shard % model.shard_groups
        return topics.fanout_transactional_id(model.name, model.incarnation, region.name, region.incarnation, group)

    def _seeding(self, place: _Place) -> ShardSeeding:
        snapshot, shard = place.snapshot, place.shard
        seed = Seed(shard, snapshot.state.shards[shard], self._settled(snapshot, shard), snapshot.state.voids)
        lanes = self._lanes(snapshot, shard)
        return ShardSeeding(lanes, place.regional, place.region, self._model, self._catalogue, seed=seed)

    def _lanes(self, snapshot: Sealed, shard: int) -> DonorLanes:
        position = snapshot.state.shards[shard]
        return DonorLanes(self._donors, self._donor, self._model, self._catalogue, shard=shard, position=position)

    def _settled(self, snapshot: Sealed, shard: int) -> Settled:
        """The barrier of the state at which the snapshot is complete in this shard."""
        epoch = snapshot.state.shards[shard].complete
        if epoch == 0:
            return Settled()
        state = self._states.get(epoch)
        if state is None:
            raise StateUnavailable(
                f"snapshot {snapshot.path} is complete at state {epoch} of model {self._model.name}, which is not "
                "published; nothing was changed",
                hint="take a newer snapshot of the donor; see `ekko states`, and that `ekko manager` runs",
            )
        return Settled(state.offsets[shard] + 1, epoch, state.generation)

    def _target(self, snapshot: Sealed, region: RegionDeclaration, folder: Path) -> Path:
        shards = sorted(snapshot.state.shards)
        whole = len(shards) == self._model.shards
        part = "seed" if whole else f"seed-{'-'.join(map(str, shards))}"
        return folder / part / folder_name(self._model, region)

    def _make(
        self, snapshot: Sealed, region: RegionDeclaration, positions: dict[int, ShardPosition], target: Path
    ) -> None:
        """The donor's snapshot as one of the new region, standing where its lanes begin."""

        def moved(state: ReplicaState) -> ReplicaState:
            assert region.incarnation is not None
            return replace(state, region_incarnation=region.incarnation, shards=positions)

        partial_folder = fresh_partial(target)
        with shown(f"seed of {self._model.name}", snapshot.size) as progress:
            copy_in(snapshot, partial_folder, progress)
        write_state(partial_folder, transplant(partial_folder, moved))
        seal(partial_folder, target, region.name, snapshot.taken_s)
