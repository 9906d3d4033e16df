"""What can be set of a region's fan-out."""

from dataclasses import dataclass

from ekko.schemas.errors import ConfigurationError

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FanoutSettings:
    """Settings of a region's fan-out, with their defaults.

    Attributes:
        models: only these are fanned out; empty: all of the catalogue.
        bandwidth_bytes_per_s: budget for everything that is sent, on the wire; None: unlimited.
        bulk_max_age_s: bulk that has waited longer is sure of `bulk_share` of the budget.
        express_percentile: a row is express when its score is at or above this percentile of recent scores.
        score: `package.module:function` in place of Ekko's score.
        pending_bytes: memory for bulk that waits; beyond it bulk is forgotten and later computed again from the log.
        transaction_bytes: a transaction carries about this much at most, so that it stays short.
        poll_s: how long a step waits for source records when nothing else is to be done.
        retry_s: pause before a shard group that failed is taken over again.
        announce_s, lifetime_s: how often an instance announces itself, and after what silence others take over from it.
        timeout_s: for a commit, and for reading on during a takeover.
    """

    models: frozenset[str] = frozenset()
    bandwidth_bytes_per_s: float | None = None
    bulk_max_age_s: float = 1.0
    bulk_share: float = 0.1
    express_percentile: float = 99.0
    score: str | None = None
    pending_bytes: int = 1024 * _MIB
    transaction_bytes: int = 8 * _MIB
    poll_s: float = 0.05
    retry_s: float = 1.0
    timeout_s: float = 10.0
    signal_interval_s: float = 1.0
    announce_s: float = 0.5
    lifetime_s: float = 2.0

    def __post_init__(self) -> None:
        if self.bandwidth_bytes_per_s is not None and self.bandwidth_bytes_per_s <= 0:
            raise ConfigurationError(f"bandwidth_bytes_per_s {self.bandwidth_bytes_per_s} is not positive")
        if not 0 <= self.express_percentile <= 100:
            raise ConfigurationError(f"express_percentile {self.express_percentile} is not in 0..100")
        if not 0 < self.bulk_share <= 1:
            raise ConfigurationError(f"bulk_share {self.bulk_share} is not in (0, 1]")
