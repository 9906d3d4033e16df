"""Every topic there is, with its partitions and settings (DESIGN section 11)."""

from collections.abc import Mapping
from dataclasses import dataclass

from ekko.schemas import topics
from ekko.schemas.blocks import Lane
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.limits import MAX_BLOCK_BYTES
from ekko.streams.log import TopicSpec

_DAY_MS = 24 * 60 * 60 * 1000
_BLOCK_BYTES = MAX_BLOCK_BYTES + 64 * 1024
_REJECTION_BYTES = MAX_BLOCK_BYTES + 256 * 1024
"""A rejection holds the whole block that was refused."""

# By the broker's clock, as the source logs: the fan-out compares their stamps.
FOREVER = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
}
# Small segments that are rolled soon: only what is in a rolled segment is compacted.
_COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": str(10 * 60 * 1000),
    "segment.bytes": str(16 * 1024 * 1024),
    "min.cleanable.dirty.ratio": "0.1",
}


def _kept(days: int) -> dict[str, str]:
    # By the broker's clock: a trainer whose clock is wrong must neither lose its deltas early nor keep them for ever.
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(days * _DAY_MS),
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
    }


@dataclass(frozen=True, slots=True)
class Need:
    """A topic that must exist.

    Attributes:
        model, region: whose it is; None where it serves all of them.
        irreplaceable: with it gone the model (in that region) can't be right again, so it is made only with its owner.
    """

    spec: TopicSpec
    model: str | None = None
    region: str | None = None
    irreplaceable: bool = False


def _need(
    name: str, partitions: int, settings: Mapping[str, str], *, model: str | None = None, region: str | None = None
) -> Need:
    return Need(TopicSpec(name, partitions, dict(settings)), model, region)


def _log(name: str, partitions: int, days: int, model: str, region: str | None = None) -> Need:
    settings = {**_kept(days), "max.message.bytes": str(_BLOCK_BYTES)}
    return Need(TopicSpec(name, partitions, settings), model, region, irreplaceable=True)


def catalogue() -> Need:
    """The catalogue, at the centre or mirrored to a region's own cluster: one partition, never compacted or trimmed."""
    return _need(topics.CATALOGUE, 1, FOREVER)


def shares() -> Need:
    """The monitor's view of all models."""
    return _need(topics.SHARES, 1, _COMPACTED)


def of_model(model: ModelDeclaration) -> list[Need]:
    """A model's topics on the central cluster."""
    name = model.name
    return [
        _log(topics.deltas(name), model.shards, 7, name),
        _need(topics.control(name), 1, _COMPACTED, model=name),
        _need(topics.states(name), 1, _COMPACTED, model=name),
        _need(topics.signals(name), 1, _kept(1), model=name),
        _need(topics.audit(name), 1, _kept(365), model=name),
    ]


def of_region(region: RegionDeclaration) -> list[Need]:
    """A region's topics on its cluster, whatever its models; on a cluster of its own the mirrored catalogue, too."""
    members = _need(topics.members(region.name), 1, _COMPACTED, region=region.name)
    # By the broker's clock: who lives is read from the stamps.
    stamped = {**_COMPACTED, "message.timestamp.type": "LogAppendTime"}
    fanouts = _need(topics.fanouts(region.name), 1, stamped, region=region.name)
    return [members, fanouts, catalogue()] if region.bootstrap else [members, fanouts]


def of_model_in_region(model: ModelDeclaration, region: RegionDeclaration) -> list[Need]:
    """A model's topics on a region's cluster; on a cluster of its own those that the fan-out mirrors, too."""
    name, where = model.name, region.name
    rejected = {**_kept(30), "cleanup.policy": "compact,delete", "max.message.bytes": str(_REJECTION_BYTES)}
    needs = [_log(topics.lane(name, where, lane), model.shards, 3, name, where) for lane in Lane]
    needs += [
        Need(TopicSpec(topics.fanout(name, where), model.shards, _COMPACTED), name, where, irreplaceable=True),
        _need(topics.rejected(name, where), model.shards, rejected, model=name, region=where),
    ]
    mirrored = [
        _need(topics.control(name), 1, _COMPACTED, model=name),
        _need(topics.signals(name), 1, _kept(1), model=name),
    ]
    return [*needs, *mirrored] if region.bootstrap else needs
