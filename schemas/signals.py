"""What is measured and judged: signals from every process, shares, rejections, audit entries."""

from dataclasses import dataclass, field

from ekko.schemas.errors import BadInput

PENDING_BYTES = "pending_bytes"
"""Metric of a fan-out: bytes of memory that rows take which wait for bandwidth; `count` is how many rows wait."""
OUT_OF_RANGE = "out_of_range_rows"
"""Metric of a trainer: rows that its publisher refused, for they were not finite or beyond the table's range."""
REFUSED = "refused_blocks"
"""Metric of a fan-out: source records refused as bad input; not those of old generations or of denied trainers."""
OVERFLOWED = "overflowed_rows"
"""Metric of a store: rows whose values wrapped around."""
PUBLISHED = "published_blocks"
"""Metric of a fan-out about a trainer, the `source`: `count` blocks came; it published the newest at `event_us`."""
TRAINERS_HEARD = "trainers_heard"
"""Metric of a fan-out that reads all it is to read: from so many trainers blocks came since it last said so."""
ENDED = "trainer_ended"
"""Metric about a trainer, the `source`: at `event_us` it closed its publisher, or was blocked; its silence is right."""
TRAINER = "trainer/"
"""With a trainer's name behind it, the `source` of signals of and about a trainer."""
_MAX_AHEAD_US = 3_600 * 1_000_000
"""Clocks of serving processes may be wrong by so much; what lies further ahead would hold up the monitor's time."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One aggregated measurement about a model.

    Attributes:
        source: who measured: 'serving', 'store', 'fanout' or 'trainer', then '/' and its name.
        metric: e.g. 'requests', 'gradient_norm', 'log_loss', 'auc', 'update_latency_ms', 'pending_bytes'.
        cohort: 'live' or 'baseline'.
        value: sum over `count` observations.
        event_us: end of the interval measured, microseconds since 1970.
    """

    model: str
    region: str
    source: str
    metric: str
    value: float
    count: int
    event_us: int
    cohort: str = "live"


def check_event_time(event_us: int, now_us: int) -> None:
    """Refuse times of events that can only be a mistake (other units, another clock); microseconds since 1970.

    Raises:
        BadInput: before 1970, or more than an hour after now.
    """
    if not 0 <= event_us <= now_us + _MAX_AHEAD_US:
        raise BadInput(
            f"event_us={event_us} is before 1970 or more than an hour ahead of this machine's {now_us}",
            hint="send microseconds since 1970, and compare the clocks of both machines",
        )


@dataclass(frozen=True, slots=True)
class Shares:
    """The monitor's view of a model, for scoring: `c_m / sum c`, and the mean l1 norm of its recent row updates.

    `mean_gradient` is in parameter units, like the norms a fan-out reports. Units of time: microseconds since 1970.
    """

    model: str
    incarnation: int
    request_share: float
    mean_gradient: float
    written_us: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A source record that a region's fan-out refused: never applied, kept with its bytes.

    Attributes:
        reason: short stable code, e.g. 'old_generation', 'unknown_table', 'bad_format', 'wrong_dim', 'denied'.
        detail: a sentence.
        shard, offset: origin of the record.
        record: its bytes; None for blocks of an old generation (header only).
    """

    model: str
    incarnation: int
    shard: int
    offset: int
    reason: str
    detail: str
    trainer: str
    table: str
    rejected_us: int
    record: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to a model, when and why."""

    model: str
    action: str
    actor: str
    reason: str
    at_us: int
    details: dict[str, str] = field(default_factory=dict)
