"""Whether all topics are there, with their partitions, retention and clean-up, their copies, and our rights on them."""

from collections.abc import Iterable, Iterator, Mapping

from ekko.ops.findings import Finding, ok, problem, warning
from ekko.streams.catalogue.topics import Need

RIGHTS = ("READ", "WRITE", "DESCRIBE")
AT_LEAST = frozenset({"retention.ms", "retention.bytes", "max.message.bytes"})
"""Settings where more than what was declared is fine; -1 is without limit."""
MUST = frozenset({"cleanup.policy", "message.timestamp.type"})
"""Settings that decide what a topic means."""
NAMED = 3


def check_presence(needs: Iterable[Need], found: Mapping[str, int]) -> Iterator[Finding]:
    """Every topic that a declared model or region needs, with its number of partitions."""
    needed = list(needs)
    missing = [need.spec.name for need in needed if need.spec.name not in found]
    if missing:
        yield problem(
            "topics",
            f"{_named(missing)} missing",
            "run `ekko model apply FILE` again; nothing makes topics on the side",
        )
    for need in needed:
        name, wanted = need.spec.name, need.spec.partitions
        if name in found and found[name] != wanted:
            yield problem(
                "topics",
                f"{name} has {found[name]} partition(s), it must have {wanted}: rows are torn apart",
                f"`ekko model delete {need.model}` and apply again" if need.model else f"delete {name} and apply again",
            )
    if not missing:
        yield ok("topics", f"all {len(needed)} topics of the catalogue are there")


def check_settings(need: Need, settings: Mapping[str, str], bootstrap: str) -> Iterator[Finding]:
    """A topic's retention and clean-up; `bootstrap` is where the fix is to be applied."""
    for name, wanted in need.spec.settings.items():
        have = settings.get(name, wanted)
        if name in AT_LEAST and not _enough(have, wanted):
            yield problem(
                "retention",
                f"{need.spec.name} has {name}={have}, less than {wanted}",
                _alter(need, name, wanted, bootstrap),
            )
        elif name in MUST and set(have.split(",")) != set(wanted.split(",")):
            yield problem(
                "retention", f"{need.spec.name} has {name}={have}, not {wanted}", _alter(need, name, wanted, bootstrap)
            )


def check_copies(replicas: Mapping[str, tuple[int, int]], needed: Iterable[str], brokers: int) -> Iterator[Finding]:
    """Whether a broker may fail without loss."""
    ours = {name: replicas[name] for name in needed if name in replicas}
    lagging = [name for name, (copies, in_sync) in ours.items() if in_sync < copies]
    if lagging:
        yield problem("copies", f"{_named(lagging)}: not every copy is in sync", "look after the broker that lags")
    single = [name for name, (copies, _) in ours.items() if copies == 1]
    if single and brokers > 1:
        yield warning(
            "copies",
            f"{_named(single)}: one copy only, though there are {brokers} brokers: a lost disk loses it",
            "raise default.replication.factor before `ekko model apply`, or reassign with Kafka's own tools",
        )


def check_rights(rights: Mapping[str, frozenset[str]], bootstrap: str) -> Iterator[Finding]:
    """Whether we may do with the topics what Ekko's processes do."""
    lacking = {right: [name for name, have in rights.items() if right not in have] for right in RIGHTS}
    for right, names in lacking.items():
        if names:
            yield problem(
                "rights",
                f"this user has no right to {right} {_named(names)}",
                f"ekko kafka acls --bootstrap-server {bootstrap} --add --allow-principal User:NAME "
                f"--operation {right.capitalize()} --topic {names[0]}; or for all at once with --topic PREFIX "
                "--resource-pattern-type prefixed",
            )
    if rights and not any(lacking.values()):
        yield ok("rights", f"this user may read and write all {len(rights)} topics")


def _enough(have: str, wanted: str) -> bool:
    return int(have) == -1 or (int(wanted) != -1 and int(have) >= int(wanted))


def _alter(need: Need, name: str, value: str, bootstrap: str) -> str:
    setting = f"{name}=[{value}]" if "," in value else f"{name}={value}"
    where = f"--bootstrap-server {bootstrap} --entity-type topics --entity-name {need.spec.name}"
    return f"ekko kafka configs {where} --alter --add-config {setting}"


def _named(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(sorted(names)[:NAMED]) + (f" and {more} more" if more > 0 else "")
