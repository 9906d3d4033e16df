"""`ekko rewind --to-group`, `--to-store`: what becomes of a consumer group whose offsets somebody has reset.

A store's rows belong to its own positions, so it never goes where somebody has set its group. Whoever wants it to read
again from there gets the newest snapshot at or before it: the same rows in the end, and the lanes read again. All
partitions or none: each is looked at before anything is changed, and read back afterwards.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from ekko.ops.process import central_cluster, region_cluster
from ekko.ops.rewind import Choice, lane_bounds, replace_store, to_read
from ekko.ops.settings import Settings
from ekko.schemas.errors import ConfigurationError, GapError, StateUnavailable
from ekko.storage.disk.data_folder import folder_name
from ekko.storage.disk.folder_lock import FolderLock
from ekko.storage.disk.snapshots import SNAPSHOTS, Snapshot, closed_state, read
from ekko.streams.applier.bounds import lost
from ekko.streams.catalogue import Catalogue
from ekko.streams.groups import Group, reset_by_others
from ekko.streams.log import Bounds, Partition
from ekko.streams.replica.groups import StoreGroups, lane_places

Tell = Callable[[str], None]

_MEMBERS_S = 12.0
"""A process that was killed is a member of its group for some seconds."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the operator asked for; `to_store` forgets the reset instead of following it."""

    model: str
    region: str
    data: Path
    replica: str
    to_store: bool
    execute: bool


def run(settings: Settings, request: Request, tell: Tell) -> None:
    """Print the plan; with `execute`, carry it out.

    Raises:
        ConfigurationError: no store is there, nobody has reset anything, or the group's process runs.
        GapError: an offset that was set is not in the log, or retention has passed the store; nothing was changed.
        StateUnavailable: no snapshot stands at or before what was set; nothing was changed.
        StoreLocked: the store runs; nothing was changed.
    """
    with ExitStack() as opened:
        central = opened.enter_context(closing(central_cluster(settings)))
        catalogue = opened.enter_context(closing(Catalogue(central)))
        catalogue.refresh()
        model, region = catalogue.model(request.model), catalogue.region(request.region)
        cluster = opened.enter_context(closing(region_cluster(settings, region)))
        name = StoreGroups(cluster, region, request.replica, request.data).name(model)
        group = opened.enter_context(closing(cluster.group(name)))
        folder = request.data / folder_name(model, region)
        if not folder.exists():  # looking into it would make it
            raise ConfigurationError(f"there is no store in {folder}", hint="check --data and --region")
        lock = FolderLock(request.data, "ekko rewind")
        opened.callback(lock.release)
        own = lane_places(closed_state(folder), region.name)
        lanes = lane_bounds(cluster, model, region)
        reset = reset_by_others(group.committed(own))
        if not reset:
            raise ConfigurationError(f"nobody has reset offsets of group {name}", hint="start the store")
        tell(f"store     {folder}")
        tell(f"group     {name}")
        for at, offset in sorted(reset.items()):
            tell(
                f"  {at.topic}[{at.number}]: set to {offset}, the store stands at {own[at]}, "
                f"the log holds {lanes[at].low}..{lanes[at].end}"
            )
        if request.to_store:
            _forget(group, own, request, tell)
            return
        check_in_log(reset, lanes)
        choice = choose_before(read(request.data / SNAPSHOTS / folder.name), reset, region.name, lanes)
        _follow(group, folder, choice, request, tell)


def check_in_log(reset: Mapping[Partition, int], lanes: Mapping[Partition, Bounds]) -> None:
    """Refuse offsets that the log does not hold: all of them are looked at (GapError)."""
    gaps = [gap.message for at, offset in sorted(reset.items()) if (gap := lost(at, offset, lanes[at])) is not None]
    if gaps:
        raise GapError(
            f"{len(gaps)} of {len(reset)} partitions were set to what the log does not hold: {'; '.join(gaps)}; "
            "nothing was changed in any",
            hint="reset them to offsets that are there, or forget the reset with --to-store",
        )


def choose_before(
    snapshots: list[Snapshot], reset: Mapping[Partition, int], region: str, lanes: Mapping[Partition, Bounds]
) -> Choice:
    """The newest snapshot that stands at or before every offset set, and from which the lanes go on.

    Raises:
        StateUnavailable: there is none.
    """
    for snapshot in reversed(snapshots):
        places = lane_places(snapshot.state, region)
        missing, offsets = to_read(snapshot, lanes)
        if not missing and all(places[at] <= offset for at, offset in reset.items()):
            return Choice(snapshot, offsets)
    raise StateUnavailable(
        f"none of {len(snapshots)} snapshots stands at or before what was set and is still within the log; "
        "nothing was changed",
        hint="forget the reset with --to-store; a replica that is to read everything again gets an empty folder",
    )


def _forget(group: Group, own: Mapping[Partition, int], request: Request, tell: Tell) -> None:
    tell("the store stays where it is, and its group is set back to there")
    if not request.execute:
        tell("nothing was changed; add --execute")
        return
    _write(group, own)
    tell(f"set back {len(own)} partitions; start the store")


def _follow(group: Group, folder: Path, choice: Choice, request: Request, tell: Tell) -> None:
    tell(f"snapshot  {choice.snapshot.path}, complete at state {choice.snapshot.state.complete}")
    tell(f"lanes     {choice.offsets} offsets are read again")
    if not request.execute:
        tell("nothing was changed; add --execute")
        return
    replace_store(folder, choice.snapshot, tell)
    places = lane_places(choice.snapshot.state, request.region)
    _write(group, places)
    for at, offset in sorted(places.items()):
        tell(f"  {at.topic}[{at.number}]: {offset}")


def _write(group: Group, places: Mapping[Partition, int]) -> None:
    turns = Retrying(
        retry=retry_if_exception_type(ConfigurationError),
        stop=stop_after_delay(_MEMBERS_S),
        wait=wait_fixed(1.0),
        reraise=True,
    )
    for turn in turns:
        with turn:
            group.write(places)
