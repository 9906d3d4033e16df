"""What the log says about the processes right now; reading only, judging is done elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from math import inf

from ekko.ops.announcements import newest
from ekko.ops.status.signals import Heard, SignalTail
from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import Barrier, ModelState
from ekko.schemas.errors import EkkoError, TopicMissing
from ekko.schemas.replicas import FanoutState, Member
from ekko.schemas.signals import Shares
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Bounds, Cluster, Partition, Record, read_all, read_range
from ekko.streams.manager.history import read_control, read_states, source_partitions
from ekko.streams.manager.silence import shortest_retention_s

Connect = Callable[[RegionDeclaration], Cluster]
TAIL = 50
"""Offsets at the end of a fan-out topic that are read for its last state; half of them are transaction markers."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model at the centre.

    Attributes:
        barrier: the last one; None before the first.
        states: published states by epoch.
        source: bounds of the source log by shard.
        retention_s: how long the source log is kept, seconds.
    """

    model: ModelDeclaration
    barrier: Barrier | None
    states: Mapping[int, ModelState]
    source: Mapping[int, Bounds]
    retention_s: float = inf


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """A model in a region.

    Attributes:
        fanout: the last state of each fan-out shard.
        rejected: how many records it has refused.
        retention_s: how long its lanes are kept, the shorter one, seconds.
    """

    fanout: Mapping[int, FanoutState]
    rejected: int
    retention_s: float = inf


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a fan-out, by its last announcement.

    Attributes:
        seen_us: when that was, microseconds since 1970, by the broker's clock.
        halted: "model/shard" -> why it stands still there.
    """

    seen_us: int
    halted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """A region.

    Attributes:
        failure: why its cluster cannot be read; "" if it can.
        members: replicas by their last announcements.
        instances: those of its fan-out, by name.
        lanes: by model.
    """

    region: RegionDeclaration
    failure: str = ""
    members: tuple[Member, ...] = ()
    instances: Mapping[str, Instance] = field(default_factory=dict)
    lanes: Mapping[str, LaneFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything, as of one moment.

    Attributes:
        shares: by model.
        heard: the latest signals of all models.
    """

    models: tuple[ModelFacts, ...]
    regions: tuple[RegionFacts, ...]
    shares: Mapping[str, Shares]
    heard: Sequence[Heard] = ()


def read(central: Cluster, connect: Connect, tail: SignalTail | None = None) -> Facts:
    """Read it all; signals where there is a ``tail`` of them.

    Raises:
        ConnectionFailed: the central cluster does not answer (a region that does not is told as a fact).
        TopicMissing: nothing was ever declared.
    """
    with closing(Catalogue(central)) as catalogue:
        catalogue.refresh()
        models = [model for _, model in sorted(catalogue.models.items())]
        regions = [region for _, region in sorted(catalogue.regions.items())]
        return Facts(
            tuple(_model(central, catalogue, model) for model in models),
            tuple(_region(connect, catalogue, region, models) for region in regions),
            {share.model: share for share in newest(catalogue.codec, read_all(central, topics.SHARES), Shares)},
            _heard(tail, [model.name for model in models]) if tail is not None else (),
        )


def _heard(tail: SignalTail, models: list[str]) -> list[Heard]:
    try:
        return tail.read(models)
    except TopicMissing:  # which one, is for `ekko doctor` to tell
        return []


def _model(central: Cluster, catalogue: Catalogue, model: ModelDeclaration) -> ModelFacts:
    bounds = central.bounds(source_partitions(model))
    return ModelFacts(
        model,
        read_control(central, catalogue.codec, model),
        read_states(central, catalogue.codec, model),
        {partition.number: bound for partition, bound in bounds.items()},
        shortest_retention_s(central, [topics.deltas(model.name)]),
    )


def _region(
    connect: Connect, catalogue: Catalogue, region: RegionDeclaration, models: list[ModelDeclaration]
) -> RegionFacts:
    try:
        with closing(connect(region)) as cluster:
            # What was sent is read before what was applied: so a replica can't seem to lag because time went by.
            lanes = {model.name: _lanes(cluster, catalogue, model, region) for model in models}
            instances = _instances(catalogue, read_all(cluster, topics.fanouts(region.name)))
            members = newest(catalogue.codec, read_all(cluster, topics.members(region.name)), Member)
            return RegionFacts(region, members=tuple(members), instances=instances, lanes=lanes)
    except (EkkoError, TimeoutError) as error:
        return RegionFacts(region, failure=str(error))


def _instances(catalogue: Catalogue, records: list[Record]) -> dict[str, Instance]:
    stamps = {record.key: record.timestamp_ms * 1_000 for record in records}
    members = newest(catalogue.codec, records, Member)
    return {
        member.replica: Instance(stamps[member.replica.encode()], member.halted) for member in members if member.ready
    }


def _lanes(cluster: Cluster, catalogue: Catalogue, model: ModelDeclaration, region: RegionDeclaration) -> LaneFacts:
    partitions = [Partition(topics.fanout(model.name, region.name), shard) for shard in range(model.shards)]
    bounds = cluster.bounds(partitions)
    records = read_range(cluster, {each: max(bound.low, bound.end - TAIL) for each, bound in bounds.items()})
    states = {
        state.shard: state
        for state in newest(catalogue.codec, records, FanoutState)
        if (state.incarnation, state.region_incarnation) == (model.incarnation, region.incarnation)
    }
    refused = cluster.bounds(
        Partition(topics.rejected(model.name, region.name), shard) for shard in range(model.shards)
    )
    lanes = [topics.lane(model.name, region.name, lane) for lane in Lane]
    refusals = sum(bound.end > bound.low for bound in refused.values())
    return LaneFacts(states, refusals, shortest_retention_s(cluster, lanes))
