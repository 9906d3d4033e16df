"""Settings of the state manager."""

from dataclasses import dataclass

from ekko.schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """How often states are made and when they count as healthy; the same for a manager and its standbys.

    Attributes:
        epoch_interval_s: seconds between two barriers of a model.
        healthy_after_s: a candidate is healthy when it has been complete in all regions, unsuspected, for so long.
        takeover_factor: a standby takes over when no barrier came for this many epoch intervals.
        rollbacks_an_hour: how many automatic rollbacks of a model an hour may have; 0 for none at all.
        retry_s: pause after a failure of broker or log before the same model is tried again.
        catalogue_interval_s: how often new models and regions are looked for.
    """

    epoch_interval_s: float = 30.0
    healthy_after_s: float = 60.0
    takeover_factor: float = 1.5
    rollbacks_an_hour: int = 3
    retry_s: float = 1.0
    catalogue_interval_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epoch_interval_s", "retry_s", "catalogue_interval_s"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}, it must be above 0")
        if self.healthy_after_s < 0:
            raise ConfigurationError(f"healthy_after_s is {self.healthy_after_s}, it must not be negative")
        if self.takeover_factor <= 1:
            raise ConfigurationError(
                f"takeover_factor is {self.takeover_factor}, it must be above 1",
                hint="else a standby fences a manager that is merely waiting for its next barrier",
            )

    @property
    def takeover_after_s(self) -> float:
        """Silence after which a standby takes over, seconds."""
        return self.takeover_factor * self.epoch_interval_s
