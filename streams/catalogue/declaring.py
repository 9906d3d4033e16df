"""Declaring and deleting models and regions: the logic of `ekko model apply` and `ekko model delete`.

Appliers take turns by one transactional identity: each fences those before it, reads the catalogue to its end and
writes what is missing in one transaction, so two at once come out as one after the other. Topics are made before the
record that needs them, and every step may be repeated: what failed half way is finished by running it again.
"""

from collections.abc import Callable
from dataclasses import replace

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.errors import CommitUncertain, Fenced, TransactionAborted
from ekko.streams.catalogue import PARTITION, Catalogue
from ekko.streams.catalogue import topics as declaring_topics
from ekko.streams.catalogue.ensure import Connect, ensure_base, ensure_topics, region_cluster, remove_topics
from ekko.streams.catalogue.plan import Change, Declarations, plan
from ekko.streams.log import Cluster, Output

_TURNS = 20


def declare(central: Cluster, declarations: Declarations, connect: Connect) -> list[str]:
    """Make catalogue and topics be what `declarations` say; returns what was done in words, empty if nothing was.

    Also writes this version's writer schemas. Never removes anything: what the declarations do not name stays.

    Args:
        central: the central cluster.
        declarations: see `declaring_file.read_declarations`.
        connect: called for regions that name a bootstrap of their own; what it returns is closed again here.

    Raises:
        CatalogueConflict: a dim, shard count, ... would change, or a topic that exists is not as it must be.
        ConnectionFailed: a cluster does not answer.
        Fenced: other appliers came in between again and again.
    """
    done = ensure_base(central)

    def decide(catalogue: Catalogue) -> list[Change]:
        changes = plan(catalogue, declarations)
        done.extend(ensure_topics(central, catalogue, declarations, connect))
        return changes

    _write(central, decide, done)
    return list(dict.fromkeys(done))


def delete_model(central: Cluster, name: str, connect: Connect) -> list[str]:
    """Mark a model deleted and remove its topics everywhere; returns what was done in words.

    Run again after a failure, it removes what was left.

    Raises:
        ConfigurationError: there never was such a model.
        ConnectionFailed: a cluster does not answer; the model is marked all the same if the central one did.
    """
    regions: dict[str, RegionDeclaration] = {}

    def decide(catalogue: Catalogue) -> list[Change]:
        regions.update(catalogue.regions)
        if catalogue.was_deleted(model=name):
            return []
        return [Change(f"model:{name}", replace(catalogue.model(name), deleted=True), f"model {name} deleted")]

    done: list[str] = []
    _write(central, decide, done)
    model = ModelDeclaration(name)
    central_names = {need.spec.name for need in declaring_topics.of_model(model)}
    for region in regions.values():
        names = {need.spec.name for need in declaring_topics.of_model_in_region(model, region)}
        if region.bootstrap:
            with region_cluster(region, connect) as cluster:
                done += [f"region {region.name}: {text}" for text in remove_topics(cluster, names)]
        else:
            central_names |= names
    return list(dict.fromkeys(done + remove_topics(central, central_names)))


def delete_region(central: Cluster, name: str, connect: Connect) -> list[str]:
    """Mark a region deleted and remove its topics of all models; returns what was done in words.

    Run again after a failure, it removes what was left on the central cluster.

    Raises:
        ConfigurationError: there never was such a region.
        ConnectionFailed: a cluster does not answer; the region is marked all the same if the central one did.
    """
    regions: list[RegionDeclaration] = []
    models: list[ModelDeclaration] = []

    def decide(catalogue: Catalogue) -> list[Change]:
        models[:] = catalogue.models.values()
        if catalogue.was_deleted(region=name):
            return []
        regions[:] = [catalogue.region(name)]
        return [Change(f"region:{name}", replace(regions[0], deleted=True), f"region {name} deleted")]

    done: list[str] = []
    _write(central, decide, done)
    region = regions[0] if regions else RegionDeclaration(name)
    needs = [need for model in models for need in declaring_topics.of_model_in_region(model, region)]
    names = {need.spec.name for need in declaring_topics.of_region(region) + needs if need.region == name}
    if region.bootstrap:
        with region_cluster(region, connect) as cluster:
            done += remove_topics(cluster, names)
    else:
        done += remove_topics(central, names)
    return list(dict.fromkeys(done))


def _write(central: Cluster, decide: Callable[[Catalogue], list[Change]], done: list[str]) -> None:
    """Write what `decide` asks for, based on a catalogue to which nobody can have added since; tell it in `done`."""
    turns = Retrying(
        retry=retry_if_exception_type((Fenced, CommitUncertain, TransactionAborted)),
        stop=stop_after_attempt(_TURNS),
        wait=wait_random(0.0, 0.5),
        reraise=True,
    )
    for turn in turns:
        with turn:
            _take_turn(central, decide, done)


def _take_turn(central: Cluster, decide: Callable[[Catalogue], list[Change]], done: list[str]) -> None:
    writer = central.transactional_writer(topics.CATALOGUE_TRANSACTIONAL_ID)  # fences every applier before us
    catalogue = Catalogue(central)
    try:
        catalogue.refresh()
        changes = decide(catalogue)
        # Said before it is known: a commit of unknown fate is found done at the next turn, and then it was ours.
        done.extend(change.text for change in changes)
        if changes:
            outputs = [Output(PARTITION, encode(change.declaration), change.key.encode()) for change in changes]
            offsets = writer.transact(outputs)
            # Readers may see a commit a moment after its writer knows of it; whoever asks next shall find it.
            catalogue.reach(max(offsets) + 1)
    finally:
        catalogue.close()
        writer.close()
