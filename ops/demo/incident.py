"""What the log tells about a trainer that went bad: when the monitor was sure, and where the model was returned to."""

from dataclasses import dataclass

from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.epochs import Verdict
from ekko.schemas.errors import FormatError
from ekko.schemas.signals import AuditEntry, Signal
from ekko.streams.health.proposals import from_signal
from ekko.streams.log import Cluster, Record, read_all


@dataclass(frozen=True, slots=True)
class Incident:
    """How a model's troubles ended.

    Attributes:
        corrupt_at_s: when the monitor first called it corrupt, seconds since 1970 by its own clock; None if never.
        rolled_back_to: the state of the first rollback; None without one.
    """

    corrupt_at_s: float | None = None
    rolled_back_to: int | None = None


def read_incident(cluster: Cluster, model: str, poisoned_at_s: float) -> Incident:
    """What stands in the log since ``poisoned_at_s``, seconds since 1970.

    Raises:
        ConnectionFailed: the cluster does not answer.
    """
    codec = Codec()
    verdicts = [
        record.timestamp_ms / 1e3
        for record in read_all(cluster, topics.signals(model))
        if _is_corrupt(codec, record) and record.timestamp_ms / 1e3 >= poisoned_at_s
    ]
    entries = [_decoded(codec, record) for record in read_all(cluster, topics.audit(model))]
    targets = [
        int(entry.details["to"])
        for entry in entries
        if isinstance(entry, AuditEntry) and entry.action == "rollback" and entry.at_us / 1e6 >= poisoned_at_s
    ]
    return Incident(min(verdicts, default=None), targets[0] if targets else None)


def _is_corrupt(codec: Codec, record: Record) -> bool:
    message = _decoded(codec, record)
    proposal = from_signal(message) if isinstance(message, Signal) else None
    return proposal is not None and proposal.verdict is Verdict.CORRUPT


def _decoded(codec: Codec, record: Record) -> object:
    try:
        return codec.decode(record.value)
    except FormatError:
        return None
