"""How an entry of a model's audit trail is shown."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

from ekko.schemas.signals import AuditEntry


def _when(entry: AuditEntry) -> str:
    return datetime.fromtimestamp(entry.at_us / 1e6, UTC).isoformat(timespec="seconds")


def as_line(entry: AuditEntry) -> str:
    """One line for people."""
    details = " ".join(f"{name}={value}" for name, value in sorted(entry.details.items()))
    return f"{_when(entry)}  {entry.action:<14} {entry.actor}  {details}" + (
        f"  {entry.reason}" if entry.reason else ""
    )


def as_json(entry: AuditEntry) -> str:
    """One JSON object."""
    return json.dumps(asdict(entry) | {"at": _when(entry)})
