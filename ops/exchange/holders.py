"""Which store an export reads which shards from."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from pydantic import ValidationError

from ekko.ops.announcements import newest
from ekko.ops.process import central_cluster, region_cluster
from ekko.ops.settings import Settings
from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConnectionFailed, EkkoError, NotReady
from ekko.schemas.replicas import Member, ReplicaState
from ekko.storage.client.connections import Connections
from ekko.storage.serving import wire
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.log import read_all

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A store, and the shards to be read there.

    Attributes:
        state: what it has applied, as it announced it (it may have more by now).
    """

    address: str
    shards: tuple[int, ...]
    state: ReplicaState


def stores_of(settings: Settings, region: str) -> list[str]:
    """Addresses of a region's ready stores, as announced on its cluster; raises NotReady if there are none."""
    with closing(central_cluster(settings)) as central, closing(SharedCatalogue(central)) as catalogue:
        catalogue.refresh(_TIMEOUT_S)
        with closing(region_cluster(settings, catalogue.region(region))) as cluster:
            announced = newest(catalogue, read_all(cluster, topics.members(region)), Member)
    members = [member for member in announced if member.ready]
    if not members:
        raise NotReady(f"region {region} has no ready store", hint="start `ekko store`, or look at `ekko status`")
    return [member.address for member in sorted(members, key=lambda member: -member.written_us)]


def ask(stores: Sequence[str], model: str) -> tuple[ModelDeclaration, list[Member]]:
    """The model's declaration and the region's members, from the first store that answers.

    Raises:
        ConnectionFailed: none does.
        EkkoError: what a store answered, for instance that it does not know the model.
    """
    connections = Connections()
    trouble: EkkoError = ConnectionFailed("no store is given", hint="name one by --store HOST:PORT")
    try:
        for address in stores:
            try:
                declared = connections.request(address, "GET", f"/v1/models/{model}", b"", _TIMEOUT_S)
                members = connections.request(address, "GET", "/v1/members", b"", _TIMEOUT_S)
                return wire.MODEL_JSON.validate_json(declared), wire.MEMBERS_JSON.validate_json(members)
            except ConnectionFailed as error:
                trouble = error
            except ValidationError as error:
                trouble = ConnectionFailed(f"{address} is no store of ours: {error.errors()[0]['msg']}")
    finally:
        connections.close()
    raise trouble


def assign(model: ModelDeclaration, members: Sequence[Member]) -> list[Holder]:
    """A holder for every shard, as few stores as are needed (pure).

    Raises:
        NotReady: no ready store holds some shard.
    """
    missing, holders = set(range(model.shards)), []
    ready = [
        (member, state) for member in members if member.ready for state in member.models if state.model == model.name
    ]
    for member, state in sorted(ready, key=lambda pair: -len(pair[1].shards)):
        halted = {int(place.rpartition("/")[2]) for place in member.halted if place.rpartition("/")[0] == model.name}
        shards = tuple(sorted((missing & state.shards.keys()) - halted))
        if shards:
            holders.append(Holder(member.address, shards, state))
            missing -= set(shards)
    if missing:
        raise NotReady(
            f"no store of the region holds shard(s) {sorted(missing)} of model {model.name} and is ready",
            hint="look at `ekko status`, or wait",
        )
    return holders


def newest_state(holders: Sequence[Holder]) -> int:
    """The last model state that all of them can tell.

    Raises:
        NotReady: there is none yet.
    """
    state = min(holder.state.complete for holder in holders)
    if state == 0:
        raise NotReady("no model state is complete at the stores yet", hint="wait for the next one: see `ekko states`")
    return state
