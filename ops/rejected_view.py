"""How a refused source record is shown."""

import json
from datetime import UTC, datetime

from ekko.schemas.signals import Rejection


def _when(rejection: Rejection) -> str:
    return datetime.fromtimestamp(rejection.rejected_us / 1e6, UTC).isoformat(timespec="seconds")


def as_line(rejection: Rejection) -> str:
    """One line for people."""
    size = "bytes not kept" if rejection.record is None else f"{len(rejection.record):,} bytes"
    origin = f"{rejection.shard}:{rejection.offset}"
    whose = f"trainer {rejection.trainer or '?'}, table {rejection.table or '?'}"
    return f"{origin:>12}  {_when(rejection)}  {rejection.reason:<18} {whose}, {size}: {rejection.detail}"


def as_json(rejection: Rejection) -> str:
    """One JSON object."""
    return json.dumps(
        {
            "origin": f"{rejection.shard}:{rejection.offset}",
            "rejected": _when(rejection),
            "reason": rejection.reason,
            "trainer": rejection.trainer,
            "table": rejection.table,
            "bytes": None if rejection.record is None else len(rejection.record),
            "detail": rejection.detail,
        }
    )
