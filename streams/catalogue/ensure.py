"""Making topics exist as they must be, on one cluster, without ever touching what is in them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ekko.schemas import topics
from ekko.schemas.declarations import RegionDeclaration
from ekko.schemas.errors import CatalogueConflict, ConnectionFailed
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue import topics as declaring_topics
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.catalogue.topics import Need
from ekko.streams.log import Cluster, Partition

Connect = Callable[[RegionDeclaration], Cluster]
"""Makes the connection to the own cluster of a region that has one."""


def ensure_base(central: Cluster) -> list[str]:
    """Create the topics that serve all models; returns what was done in words.

    Raises:
        CatalogueConflict: there is a catalogue that Kafka would trim or compact.
    """
    done = _create(central, [declaring_topics.catalogue(), declaring_topics.shares()], lambda _: False)
    settings = central.topic_settings(topics.CATALOGUE)
    for name, value in declaring_topics.FOREVER.items():
        if settings.get(name, value) != value:
            raise CatalogueConflict(
                f"topic {topics.CATALOGUE} has {name}={settings[name]}, but it must never forget a model, and every "
                "reader must find the same in it",
                hint=f"set {name}={value} on it, and check that its first offset is still 0",
            )
    return done


def ensure_topics(central: Cluster, catalogue: Catalogue, wanted: Declarations, connect: Connect) -> list[str]:
    """Create what the models and regions named need, in every pair with what is live; returns what was done in words.

    Raises:
        CatalogueConflict: a topic has another number of partitions or records of somebody else, or it is gone.
    """
    models = {**catalogue.models, **{model.name: model for model in wanted.models}}
    regions = {**catalogue.regions, **{region.name: region for region in wanted.regions}}
    named_models = {model.name for model in wanted.models}
    named_regions = {region.name for region in wanted.regions}

    def is_new(need: Need) -> bool:
        new_model = need.model is not None and need.model not in catalogue.models
        return new_model or (need.region is not None and need.region not in catalogue.regions)

    needs = [need for name in sorted(named_models) for need in declaring_topics.of_model(models[name])]
    done: list[str] = []
    for region in regions.values():
        regional = declaring_topics.of_region(region) if region.name in named_regions else []
        for model in models.values():
            if model.name in named_models or region.name in named_regions:
                regional += declaring_topics.of_model_in_region(model, region)
        if not region.bootstrap:
            needs += regional
        elif regional:
            with region_cluster(region, connect) as cluster:
                _refuse_central(region, cluster)
                done += [f"region {region.name}: {text}" for text in _create(cluster, regional, is_new)]
    return _create(central, needs, is_new) + done


def _refuse_central(region: RegionDeclaration, cluster: Cluster) -> None:
    """A region's own cluster gets a mirror of the catalogue; on the central one it would be a mirror of itself."""
    if topics.SHARES in cluster.topics():
        raise CatalogueConflict(
            f"region {region.name}: bootstrap {region.bootstrap} leads to a central cluster",
            hint="leave bootstrap out for a region whose topics stand on the central cluster",
        )


@contextmanager
def region_cluster(region: RegionDeclaration, connect: Connect) -> Iterator[Cluster]:
    """A connection to a region's own cluster; what does not work there is said to be there."""
    cluster = connect(region)
    try:
        yield cluster
    except ConnectionFailed as error:
        raise ConnectionFailed(f"region {region.name}: {error.message}", hint=error.hint) from error
    finally:
        cluster.close()


def remove_topics(cluster: Cluster, names: Iterable[str]) -> list[str]:
    """Delete those of the topics that exist; returns what was done in words."""
    present = sorted(set(names) & cluster.topics().keys())
    cluster.delete_topics(present)
    return [f"topic {name} deleted" for name in present]


def _create(cluster: Cluster, needs: Sequence[Need], is_new: Callable[[Need], bool]) -> list[str]:
    have = cluster.topics()
    missing = []
    for need in needs:
        if need.spec.name not in have:
            missing.append(need)
            _check_not_lost(need, is_new)
        else:
            _check_partitions(need, have[need.spec.name])
            if is_new(need):
                _check_empty(cluster, need)
    cluster.create_topics([need.spec for need in missing])
    return [f"topic {need.spec.name} created" for need in missing]


def _check_not_lost(need: Need, is_new: Callable[[Need], bool]) -> None:
    if need.irreplaceable and not is_new(need):
        raise CatalogueConflict(
            f"topic {need.spec.name} is gone, but model {need.model} is live: a new one would begin at offset 0 again",
            hint=f"`ekko model delete {need.model}` and apply again; its parameters start anew",
        )


def _check_partitions(need: Need, found: int) -> None:
    if found != need.spec.partitions:
        raise CatalogueConflict(
            f"topic {need.spec.name} has {found} partition(s), it must have {need.spec.partitions}: "
            "keys belong to partitions, so another number would tear rows apart",
            hint=f"`ekko model delete {need.model}` and apply again, or declare a model of another name"
            if need.model
            else f"delete topic {need.spec.name} if it is not Ekko's, and apply again",
        )


def _check_empty(cluster: Cluster, need: Need) -> None:
    partitions = [Partition(need.spec.name, number) for number in range(need.spec.partitions)]
    records = sum(bounds.end for bounds in cluster.bounds(partitions).values())
    if records:
        raise CatalogueConflict(
            f"topic {need.spec.name} holds {records} offsets, but it belongs to no live model or region",
            hint=f"if it is left over from a deleted model, finish with `ekko model delete {need.model}`"
            if need.model
            else f"delete topic {need.spec.name} if nobody needs it",
        )
