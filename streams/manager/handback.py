"""Who took the tenure away: a command, which has left again, or another manager, which stays."""

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.signals import AuditEntry
from ekko.streams.log import Cluster
from ekko.streams.manager.automatic import ACTOR
from ekko.streams.manager.history import Decoder, read_audit, read_control


def command_since(cluster: Cluster, codec: Decoder, model: ModelDeclaration, known: Barrier) -> AuditEntry | None:
    """The audit entry of the command that wrote the model's newest barrier, if one did, and after `known`.

    A command writes one barrier, with its audit entry in the same transaction, and leaves. A manager's barriers have no
    entry, or one of its own. So of all managers that lost the tenure to a command one goes on at once: the next
    barrier is its own, and the others find that and stand by. If two go on at the same time, the one that is fenced
    finds no command after the barrier that it knows, and stands by.

    Raises:
        EkkoError: the topics cannot be read.
    """
    newest = read_control(cluster, codec, model)
    if newest is None or newest.epoch <= known.epoch:
        return None
    for entry in reversed(read_audit(cluster, codec, model)):
        if entry.at_us == newest.written_us and entry.details.get("epoch") == str(newest.epoch):
            return None if entry.actor == ACTOR else entry
    return None
