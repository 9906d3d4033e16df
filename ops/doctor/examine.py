"""The examination in order: network, brokers, catalogue, topics, rights, clocks, then each region's own cluster."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing

from ekko.ops.doctor import clocks, topics
from ekko.ops.doctor.brokers import check_broker
from ekko.ops.doctor.network import check_advertised, check_bootstrap, unreachable
from ekko.ops.findings import Finding, Level, ok, problem, warning
from ekko.ops.process import central_cluster, region_address, region_cluster
from ekko.ops.settings import ClusterAddress, Settings
from ekko.ops.status import facts, judge
from ekko.schemas import topics as names
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import ConnectionFailed, EkkoError, TopicMissing
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue import topics as declaring_topics
from ekko.streams.catalogue.topics import Need
from ekko.streams.kafka import GROUP, KafkaCluster
from ekko.streams.kafka.inspection import KafkaInspection
from ekko.streams.log import Partition, read_all

TIMEOUT_S = 5.0
TRANSACTIONAL_ID = "ekko.doctor"


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything; a cluster that cannot be used ends the part that needs it, not the examination."""
    address = settings.central()
    inspection = KafkaInspection(address.bootstrap, address.kafka, timeout_s=TIMEOUT_S)
    usable = yield from _network(address, inspection)
    if not usable:
        return
    with closing(central_cluster(settings)) as central, closing(Catalogue(central)) as catalogue:
        try:
            catalogue.refresh(TIMEOUT_S)
        except EkkoError as error:
            yield _unreadable(address, error)
            return
        models, regions = catalogue.models, catalogue.regions
        yield ok("catalogue", f"{len(models)} model(s), {len(regions)} region(s)")
        yield from _catalogue_whole(central)
        needs = _central_needs(models, regions)
        yield from _topics(address, central, inspection, needs)
        yield _transactions(address, central)
        if any(not region.bootstrap for region in regions.values()):
            here = next(name for name, region in regions.items() if not region.bootstrap)
            yield _clock(central, here)
        for region in regions.values():
            yield from _region(settings, region, models, central, catalogue)
        yield from _halted(settings, central)


def _halted(settings: Settings, central: KafkaCluster) -> Iterator[Finding]:
    """Shards that stand still: no set-up is right with them, and lag alone does not tell them."""
    now_us = int(time.time() * 1e6)
    try:
        found = facts.read(central, lambda region: region_cluster(settings, region))
    except (EkkoError, TimeoutError) as error:
        yield warning("halted", f"whether shards stand still is not known: {error}", "mend what stands above")
        return
    standing = [each for region in found.regions for each in judge.halted(region, now_us)]
    yield from standing or [ok("halted", "no shard stands still")]
    late = [each for model in found.models for each in judge.overdue(model, found.regions, now_us)]
    yield from late or [ok("barriers", "every model had one well within the retention of its log")]


def _unreadable(address: ClusterAddress, error: EkkoError) -> Finding:
    """The catalogue cannot be read: it is not there, or we may not read."""
    if isinstance(error, TopicMissing):
        return problem("catalogue", f"there is no topic {names.CATALOGUE}", "declare a model: `ekko model apply FILE`")
    if "authorization" not in error.message:
        return problem("catalogue", f"{names.CATALOGUE}: {error.message}", error.hint)
    what = f"--group {GROUP}" if "Group" in error.message else f"--topic {names.CATALOGUE}"
    return problem("rights", f"the catalogue cannot be read: {error.message}", f"{grant(address)} Read {what}")


def grant(address: ClusterAddress) -> str:
    """The beginning of a command that gives a user a right."""
    return f"ekko kafka acls --bootstrap-server {address.bootstrap} --add --allow-principal User:NAME --operation"


def _network(address: ClusterAddress, inspection: KafkaInspection) -> Generator[Finding, None, bool]:
    """Bootstrap, advertised listeners, brokers; returns whether going on makes sense."""
    findings = check_bootstrap(address.bootstrap)
    yield from findings
    if all(finding.level is Level.PROBLEM for finding in findings):
        return False
    try:
        brokers = inspection.brokers()
    except ConnectionFailed as error:
        yield unreachable(error)
        return False
    advertised = list(check_advertised(address.bootstrap, brokers))
    yield from advertised
    if any(finding.level is Level.PROBLEM for finding in advertised):
        return False
    for number in brokers:
        try:
            yield from check_broker(number, inspection.broker_settings(number))
        except ConnectionFailed as error:
            yield warning("broker", error.message, "give this user the right to DescribeConfigs on the cluster")
    return True


def _central_needs(models: dict[str, ModelDeclaration], regions: dict[str, RegionDeclaration]) -> list[Need]:
    needs = [declaring_topics.catalogue(), declaring_topics.shares()]
    for model in models.values():
        needs += declaring_topics.of_model(model)
    for region in regions.values():
        if not region.bootstrap:
            needs += _region_needs(region, models)
    return needs


def _region_needs(region: RegionDeclaration, models: dict[str, ModelDeclaration]) -> list[Need]:
    in_region = [declaring_topics.of_model_in_region(model, region) for model in models.values()]
    return [*declaring_topics.of_region(region), *(need for needs in in_region for need in needs)]


def _topics(
    address: ClusterAddress, cluster: KafkaCluster, inspection: KafkaInspection, needs: list[Need]
) -> Iterator[Finding]:
    """Presence, retention, copies and rights of the topics that must stand on one cluster."""
    found = cluster.topics()
    yield from topics.check_presence(needs, found)
    present = [need for need in needs if need.spec.name in found]
    settings = list(_settings(address, cluster, present))
    yield from settings or [ok("retention", "every topic keeps what it must")]
    listed = [need.spec.name for need in present]
    try:
        yield from topics.check_copies(inspection.replicas(), listed, len(inspection.brokers()))
        yield from topics.check_rights(inspection.rights(listed), address.bootstrap)
    except ConnectionFailed as error:
        yield warning("rights", error.message, error.hint)


def _settings(address: ClusterAddress, cluster: KafkaCluster, present: list[Need]) -> Iterator[Finding]:
    for need in present:
        try:
            yield from topics.check_settings(need, cluster.topic_settings(need.spec.name), address.bootstrap)
        except EkkoError as error:
            yield warning("retention", error.message, "give this user the right to DescribeConfigs on the topics")
            return


def _clock(cluster: KafkaCluster, region: str) -> Finding:
    try:
        return clocks.check_own(cluster, region)
    except EkkoError as error:
        return warning("clocks", f"this machine's clock could not be compared: {error.message}", error.hint)


def _transactions(address: ClusterAddress, cluster: KafkaCluster) -> Finding:
    """Open a transactional writer, as managers, fan-outs and operations do, and close it again."""
    try:
        cluster.transactional_writer(TRANSACTIONAL_ID).close()
    except EkkoError as error:
        fix = f"{grant(address)} Write --transactional-id ekko. --resource-pattern-type prefixed"
        return problem("rights", error.message, fix)
    return ok("rights", "this user may write in transactions")


def _catalogue_whole(cluster: KafkaCluster) -> Iterator[Finding]:
    partition = Partition(names.CATALOGUE, 0)
    low = cluster.bounds([partition])[partition].low
    if low > 0:
        yield problem(
            "catalogue",
            f"{names.CATALOGUE} begins at offset {low}: it was trimmed, and readers that start now know less",
            "stop everything and restore it from a backup; set retention.ms=-1 on it",
        )


def _region(
    settings: Settings,
    region: RegionDeclaration,
    models: dict[str, ModelDeclaration],
    central: KafkaCluster,
    catalogue: Catalogue,
) -> Iterator[Finding]:
    """A region: its own cluster, if it has one, and the clocks of its fan-outs."""
    if not region.bootstrap:
        yield from clocks.check_fanouts(region.name, read_all(central, names.fanouts(region.name)), catalogue.codec)
        return
    address = region_address(settings, region)
    inspection = KafkaInspection(address.bootstrap, address.kafka, timeout_s=TIMEOUT_S)
    yield ok("region", f"{region.name} has a cluster of its own, {address.bootstrap}:")
    usable = yield from _network(address, inspection)
    if not usable:
        return
    with closing(region_cluster(settings, region)) as cluster:
        yield from _topics(address, cluster, inspection, _region_needs(region, models))
        yield _clock(cluster, region.name)
        yield from clocks.check_fanouts(region.name, read_all(cluster, names.fanouts(region.name)), catalogue.codec)
