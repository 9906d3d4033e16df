"""`ekko rewind`: the slow road back, for a store that cannot undo: a snapshot, and its lanes again.

The store's own positions are the truth, so a store put back from a snapshot reads on where the snapshot stands, learns
every void that was committed since, undoes what it holds of them, and drops the rest as it comes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ekko.ops.process import central_cluster, region_cluster
from ekko.ops.settings import Settings
from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import StateUnavailable
from ekko.storage.disk.data_folder import folder_name, move_aside
from ekko.storage.disk.folder_lock import FolderLock
from ekko.storage.disk.snapshots import SNAPSHOTS, Snapshot, put_back, read
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Bounds, Cluster, Partition
from ekko.streams.manager.history import read_control

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; `to` None means the state of the newest rollback."""

    model: str
    region: str
    data: Path
    to: int | None
    execute: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The snapshot to go back to, and how many lane offsets are to be read again."""

    snapshot: Snapshot
    offsets: int


def run(settings: Settings, request: Request, tell: Tell) -> None:
    """Print the plan; with `execute`, carry it out.

    Raises:
        StoreLocked: the store still runs; nothing was changed.
        StateUnavailable: no rollback to such a state, or no snapshot reaches back so far; nothing was changed.
    """
    central = central_cluster(settings)
    catalogue = Catalogue(central)
    catalogue.refresh()
    model, region = catalogue.model(request.model), catalogue.region(request.region)
    void = _void(read_control(central, catalogue.codec, model), request.to)
    catalogue.close()
    folder = request.data / folder_name(model, region)
    snapshots = read(request.data / SNAPSHOTS / folder.name)
    choice = choose(snapshots, void.first, lane_bounds(region_cluster(settings, region), model, region), tell)
    tell(f"store     {folder}")
    tell(
        f"void      epochs {void.first} to {void.last}: undone and left out, as every void committed since the snapshot"
    )
    tell(f"snapshot  {choice.snapshot.path}, complete at state {choice.snapshot.state.complete}")
    tell(f"lanes     {choice.offsets} offsets are read again")
    if not request.execute:
        tell("nothing was changed; stop the store and add --execute")
        return
    lock = FolderLock(request.data, "ekko rewind")
    try:
        replace_store(folder, choice.snapshot, tell)
    finally:
        lock.release()


def choose(snapshots: list[Snapshot], to: int, lanes: dict[Partition, Bounds], tell: Tell) -> Choice:
    """The newest snapshot that can undo back to `to`, and from which the lanes still go on (DESIGN, law 9).

    Raises:
        StateUnavailable: there is none; why is told for each.
    """
    for snapshot in reversed(snapshots):
        if snapshot.state.bound > to:
            tell(f"not {snapshot.path}: it can undo back to state {snapshot.state.bound} only")
            continue
        missing, offsets = to_read(snapshot, lanes)
        if missing:
            tell(f"not {snapshot.path}: {missing}")
            continue
        return Choice(snapshot, offsets)
    raise StateUnavailable(
        f"none of {len(snapshots)} snapshots leads back to state {to}; nothing was changed",
        hint="`ekko restore` a snapshot of another replica, or start it with an empty folder if its lanes are whole",
    )


def to_read(snapshot: Snapshot, lanes: Mapping[Partition, Bounds]) -> tuple[str, int]:
    """Why the lanes do not go on from the snapshot (empty if they do), and how many offsets are to be read again."""
    offsets = 0
    for shard, position in snapshot.state.shards.items():
        for lane, stands in ((Lane.EXPRESS, position.express.offset), (Lane.BULK, position.bulk.offset)):
            for partition, bounds in lanes.items():
                if partition.number != shard or not partition.topic.endswith(f".{lane}"):
                    continue
                if not bounds.low <= stands <= bounds.end:
                    return f"{partition.topic}[{shard}] holds {bounds.low}..{bounds.end}, not {stands}", 0
                offsets += bounds.end - stands
    return "", offsets


def _void(barrier: Barrier | None, to: int | None) -> EpochRange:
    voids = barrier.voids if barrier is not None else ()
    for void in reversed(voids):
        if to is None or void.first == to:
            return void
    raise StateUnavailable(
        f"the model was never rolled back{'' if to is None else f' to state {to}'}",
        hint="`ekko rollback MODEL --to STATE --force` comes first: a rewind carries it out where undo cannot",
    )


def lane_bounds(cluster: Cluster, model: ModelDeclaration, region: RegionDeclaration) -> dict[Partition, Bounds]:
    """What the region's lanes of a model hold."""
    return cluster.bounds(
        Partition(topics.lane(model.name, region.name, lane), shard) for lane in Lane for shard in range(model.shards)
    )


def replace_store(folder: Path, snapshot: Snapshot, tell: Tell) -> None:
    """Move the store in `folder` aside, and put the snapshot in its place."""
    if folder.exists():
        tell(f"moved the store aside to {move_aside(folder)}")
    put_back(snapshot, folder)
    tell(f"put back {snapshot.path}; start the store")


if __name__ == "__main__":
    from ekko.ops.cli import run_command

    run_command("rewind")
