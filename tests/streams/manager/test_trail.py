"""Rows undone by each replica, in the audit trail: once each, whoever leads."""

from dataclasses import replace

from ekko.schemas.epochs import EpochRange
from ekko.schemas.replicas import Undone
from ekko.streams.manager import ManagerSettings
from ekko.streams.manager.history import read_audit
from ekko.streams.manager.model import ModelManager
from ekko.streams.manager.rollback import Region

from .conftest import World, complete_at

SETTINGS = ManagerSettings(epoch_interval_s=10)


def region(world: World, *undone: Undone) -> Region:
    whole = complete_at(world, 0)
    return replace(whole, members=(replace(whole.members[0], undone=undone),))


def test_what_a_replica_undid_is_written_once_though_it_is_announced_for_ever(memory: World) -> None:
    name, incarnation = memory.model.name, memory.model.incarnation
    assert incarnation is not None
    first = Undone(name, incarnation, EpochRange(2, 3), 77, 5)
    second = Undone(name, incarnation, EpochRange(4, 4), 1, 9)
    others = Undone("other", incarnation, EpochRange(2, 3), 5, 5), Undone(name, incarnation + 1, EpochRange(2, 3), 5, 5)
    for announced in ((first, *others), (first, second)):  # the second time by another manager
        manager = ModelManager(memory.connect(), memory.codec, memory.model, SETTINGS, lambda: 0)
        for step in range(4):
            manager.step(1_000.0 + 20 * step, {"east": region(memory, *announced), "west": region(memory)})
        manager.close()
    memory.settle()
    written = read_audit(memory.cluster, memory.codec, memory.model)
    assert [(entry.action, entry.actor, entry.at_us, entry.details["rows"]) for entry in written] == [
        ("undone", "east/0", 5, "77"),
        ("undone", "east/0", 9, "1"),
    ]
    assert written[0].reason == "epochs 2 to 3 are void"
