"""What a set of declarations would change in the catalogue, or why it may not: pure."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from ekko.schemas.codec import own_schemas
from ekko.schemas.declarations import (
    CHANGEABLE,
    ModelDeclaration,
    RegionDeclaration,
    SchemaDeclaration,
    TableDeclaration,
)
from ekko.schemas.errors import CatalogueConflict
from ekko.streams.catalogue import Catalogue, topics
from ekko.streams.catalogue.topics import Need


@dataclass(frozen=True, slots=True)
class Declarations:
    """What a declaration file says. What it does not name stays as it is."""

    regions: tuple[RegionDeclaration, ...] = ()
    models: tuple[ModelDeclaration, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One record to be written, and what it does in words."""

    key: str
    declaration: ModelDeclaration | RegionDeclaration | SchemaDeclaration
    text: str


def plan(catalogue: Catalogue, wanted: Declarations) -> list[Change]:
    """The records that make `catalogue` say what is `wanted`, writer schemas first; empty when it says so already.

    Raises:
        CatalogueConflict: something that cannot change would change, or two topics would be one to Kafka; nothing else
            is looked at then.
    """
    changes = [
        Change(f"schema:{schema.kind}:{schema.fingerprint:016x}", schema, f"schema {schema.fingerprint:016x} added")
        for schema in own_schemas()
        if not catalogue.has_schema(schema)
    ]
    for region in wanted.regions:
        changes += _region_changes(catalogue.regions.get(region.name), region)
    for model in wanted.models:
        changes += _model_changes(catalogue.models.get(model.name), model)
    _refuse_alike(catalogue, wanted)
    return changes


def _refuse_alike(catalogue: Catalogue, wanted: Declarations) -> None:
    """Kafka's metrics write '.' as '_', so it makes no topic whose name differs from another's by that alone."""
    models = {**catalogue.models, **{model.name: model for model in wanted.models}}
    regions = {**catalogue.regions, **{region.name: region for region in wanted.regions}}
    found: dict[tuple[str, str], Need] = {}
    needs = [("", need) for model in models.values() for need in topics.of_model(model)]
    for region in regions.values():
        needs += [(region.bootstrap, need) for need in topics.of_region(region)]
        needs += [
            (region.bootstrap, need) for model in models.values() for need in topics.of_model_in_region(model, region)
        ]
    for bootstrap, need in needs:
        other = found.setdefault((bootstrap, need.spec.name.replace(".", "_")), need)
        if other.spec.name != need.spec.name:
            raise CatalogueConflict(
                f"topics {other.spec.name} and {need.spec.name} have one name in Kafka's metrics, which write '.' as "
                "'_', so it makes one of them only; nothing was changed",
                hint=f"give {_owner(need)} another name, for instance with '-' in place of '_'",
            )


def _owner(need: Need) -> str:
    return " or ".join(f"{what} {name}" for what, name in (("model", need.model), ("region", need.region)) if name)


def _region_changes(live: RegionDeclaration | None, wanted: RegionDeclaration) -> Iterable[Change]:
    key = f"region:{wanted.name}"
    if live is None:
        yield Change(key, wanted, f"region {wanted.name} created")
    elif live.bootstrap != wanted.bootstrap:
        text = f"region {wanted.name}: bootstrap {live.bootstrap!r} is now {wanted.bootstrap!r}"
        yield Change(key, replace(live, bootstrap=wanted.bootstrap), text)


def _model_changes(live: ModelDeclaration | None, wanted: ModelDeclaration) -> Iterable[Change]:
    key = f"model:{wanted.name}"
    if live is None:
        yield Change(key, wanted, f"model {wanted.name} created with {_tables(wanted.tables)}")
        return
    for field in ("shards", "shard_groups"):
        if getattr(live, field) != getattr(wanted, field):
            what = f"model {wanted.name}: {field}"
            raise _conflict(what, getattr(live, field), getattr(wanted, field), "model", live)
    known = {table.name: table for table in live.tables}
    for table in wanted.tables:
        if table.name in known:
            _refuse_changed_table(live, known[table.name], table)
    added = tuple(table for table in wanted.tables if table.name not in known)
    texts = [f"model {wanted.name}: added {_tables(added)}"] if added else []
    afterwards = {table.name: table for table in wanted.tables}
    kept = tuple(afterwards.get(table.name, table) for table in live.tables)
    for before, now in zip(live.tables, kept, strict=True):
        texts += [f"model {wanted.name}, table {before.name}: {text}" for text in _table_changes(before, now)]
    if live.max_rows_a_block != wanted.max_rows_a_block:
        texts.append(f"model {wanted.name}: max_rows_a_block {live.max_rows_a_block} is now {wanted.max_rows_a_block}")
    if texts:
        after = replace(live, tables=kept + added, max_rows_a_block=wanted.max_rows_a_block)
        yield Change(key, after, "; ".join(texts))


def _table_changes(live: TableDeclaration, wanted: TableDeclaration) -> Iterable[str]:
    for field in CHANGEABLE:
        before, now = getattr(live, field), getattr(wanted, field)
        if before != now:
            yield f"{field} {before} is now {now}"


def _tables(tables: tuple[TableDeclaration, ...]) -> str:
    return "table " + ", ".join(f"{table.name} (dim {table.dim})" for table in tables) if tables else "no tables"


def _refuse_changed_table(model: ModelDeclaration, live: TableDeclaration, wanted: TableDeclaration) -> None:
    for field in (field.name for field in fields(TableDeclaration) if field.name not in CHANGEABLE):
        if getattr(live, field) != getattr(wanted, field):
            what = f"model {model.name}, table {wanted.name}: {field}"
            raise _conflict(what, getattr(live, field), getattr(wanted, field), "table", model)


def _conflict(what: str, live: object, wanted: object, kind: str, model: ModelDeclaration) -> CatalogueConflict:
    return CatalogueConflict(
        f"{what} is {live} and cannot become {wanted}; nothing was changed",
        hint=f"declare a {kind} of another name, or `ekko model delete {model.name}` and apply again "
        "(its parameters start anew)",
    )
