"""The audit trail's last word on a rollback: how many rows each replica took back."""

from collections.abc import Iterable, Mapping

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.replicas import Undone
from ekko.schemas.signals import AuditEntry
from ekko.streams.manager.rollback import Region

ACTION = "undone"


class UndoneTrail:
    """Turns what replicas announce into entries, each once, however often it is announced and whoever leads.

    Args:
        audit: the trail so far.
    """

    def __init__(self, model: ModelDeclaration, audit: Iterable[AuditEntry]) -> None:
        self._model = model
        self._known = {(entry.actor, entry.at_us) for entry in audit if entry.action == ACTION}

    def new(self, regions: Mapping[str, Region]) -> list[AuditEntry]:
        """Entries about what was not in the trail yet; `written` keeps them from coming again."""
        entries = (
            _entry(f"{name}/{member.replica}", undone)
            for name, region in regions.items()
            for member in region.members
            for undone in member.undone
            if (undone.model, undone.incarnation) == (self._model.name, self._model.incarnation)
        )
        return [entry for entry in entries if (entry.actor, entry.at_us) not in self._known]

    def written(self, entries: Iterable[AuditEntry]) -> None:
        """These are in the log."""
        self._known.update((entry.actor, entry.at_us) for entry in entries)


def _entry(replica: str, undone: Undone) -> AuditEntry:
    first, last = undone.void
    details = {"first": str(first), "last": str(last), "rows": str(undone.rows)}
    return AuditEntry(undone.model, ACTION, replica, f"epochs {first} to {last} are void", undone.at_us, details)
