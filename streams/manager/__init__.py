"""The state manager: barriers, model states, verdicts and rollbacks of every model."""

from ekko.streams.manager.manager import StateManager
from ekko.streams.manager.settings import ManagerSettings

__all__ = ["ManagerSettings", "StateManager"]
