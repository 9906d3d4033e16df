"""Simulated processes: the product's own state machines, started from durable state only, killed at any moment."""

from abc import ABC, abstractmethod

from ekko.schemas.errors import EkkoError, Fenced
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.manager import ManagerSettings, StateManager
from ekko.streams.manager.model import ModelManager
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.faults import Doom, Killed

LEAST_PENDING_BYTES = 400_000


class Machine(ABC):
    """A process with a supervisor: killed, it is started again some time later, knowing nothing but what is durable.

    Attributes:
        doom: how its present life ends.
    """

    restart_after_s = (0.01, 1.0)

    def __init__(self, name: str, environment: Environment) -> None:
        self.name, self.environment = name, environment
        self.doom = Doom()
        self.up = False
        self._start_at_s = 0.0

    def step(self) -> bool:
        """Start it if it is down and due, else let it do one round; whether anything was done."""
        now_s = self.environment.clock.now_s
        try:
            if not self.up:
                if now_s < self._start_at_s:
                    return False
                self.start(now_s)
                self.up = True
                return True
            return self.work(now_s)
        except Killed as moment:
            self.environment.log(f"{self.name} killed: {moment}")
            self.end()
        except EkkoError as error:
            self.environment.log(f"{self.name} exits: {type(error).__name__}: {error}")
            self.environment.watch(self.name, [error])
            self.end()
        return True

    def kill(self) -> None:
        """Kill it between two rounds."""
        self.environment.log(f"{self.name} killed")
        self.end()

    def rest_easy(self) -> None:
        """From now on it is not killed any more, and starts at once."""
        self.doom.countdown = self.doom.awaited = None
        self._start_at_s = 0.0

    def end(self) -> None:
        """Its present life is over."""
        self.up = False
        self.doom.dead = True
        self.crash()
        self.doom = Doom()
        rng = self.environment.rng
        self._start_at_s = self.environment.clock.now_s + rng.uniform(*self.restart_after_s)

    @abstractmethod
    def start(self, now_s: float) -> None:
        """Make the process from what is durable."""

    @abstractmethod
    def work(self, now_s: float) -> bool:
        """One round; whether anything was done."""

    @abstractmethod
    def crash(self) -> None:
        """Lose everything that is not durable."""


class FanoutMachine(Machine):
    """A fan-out instance, and at times its zombie: an older process that does not know yet that it was replaced."""

    def __init__(self, region: str, number: int, environment: Environment) -> None:
        super().__init__(f"fan-out {region}-{number}", environment)
        self.region = region
        self.fanout: RegionFanout | None = None
        self.zombie: RegionFanout | None = None

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        environment, scenario = self.environment, self.environment.scenario
        settings = FanoutSettings(
            bandwidth_bytes_per_s=scenario.budget_bytes_s,
            bulk_max_age_s=0.5,
            express_percentile=scenario.percentile,
            pending_bytes=scenario.pending_bytes,
            retry_s=0.1,
            announce_s=0.1,
            lifetime_s=0.5,
        )
        self.fanout = RegionFanout(
            environment.connect(CENTRAL, self.doom),
            environment.connect(self.region, self.doom),
            self.region,
            instance=self.name,
            settings=settings,
            clock=environment.clock,
        )

    def work(self, now_s: float) -> bool:
        """See `Machine.work`."""
        if self.zombie is not None:
            self._step_zombie(now_s)
        assert self.fanout is not None
        done = self.fanout.step(now_s)
        if self.environment.scenario.fanouts == 1:  # else one from which another took over may find its place gone
            self.environment.watch(self.name, self.failures)
        waiting = sum(shard.pending.nbytes for group in self.fanout.groups.values() for shard in group._shards.values())
        # One table's columns are made for a thousand rows, so a bound of less says little.
        bound = max(self.environment.scenario.pending_bytes, LEAST_PENDING_BYTES)
        assert waiting <= bound, f"{self.name}: {waiting} bytes wait, {bound} are allowed"
        return done

    @property
    def failures(self) -> list[BaseException]:
        """Why shard groups or shards stand still."""
        assert self.fanout is not None, f"{self.name} is down"
        groups = self.fanout.groups.values()
        failed = [group.failure for group in groups if group.failure is not None]
        return [*failed, *(error for group in groups for error in group.halted.values())]

    def replace(self) -> None:
        """Start it anew while the old process still runs."""
        if self.up and self.zombie is None:
            self.environment.log(f"{self.name}: started anew while the old process lives on")
            self.zombie, self.fanout = self.fanout, None
            self.doom = Doom()
            self.up = False
            self._start_at_s = 0.0

    def _step_zombie(self, now_s: float) -> None:
        assert self.zombie is not None
        try:
            self.zombie.step(now_s)
        except Fenced:
            self.environment.log(f"{self.name}: the zombie is fenced")
            self.zombie = None

    def crash(self) -> None:
        """See `Machine.crash`."""
        self.fanout = self.zombie = None


class ManagerMachine(Machine):
    """A state manager; two of them make a leader and a standby."""

    def __init__(self, number: int, environment: Environment) -> None:
        super().__init__(f"manager {number}", environment)
        self.manager: StateManager | None = None

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes barriers, as far as it knows."""
        return any(model.tenure is not None for model in self._models)

    @property
    def calls_a_person(self) -> bool:
        """Whether it leads and has given an alarm."""
        return any(model.tenure is not None and model.alarm for model in self._models)

    @property
    def _models(self) -> list[ModelManager]:
        return [] if self.manager is None else list(self.manager.models.values())

    def start(self, now_s: float) -> None:
        """See `Machine.start`."""
        del now_s
        environment = self.environment
        settings = ManagerSettings(
            epoch_interval_s=0.6,
            healthy_after_s=0.2,
            rollbacks_an_hour=environment.scenario.automatic,
            retry_s=0.1,
            catalogue_interval_s=0.3,
        )
        self.manager = StateManager(
            environment.connect(CENTRAL, self.doom),
            settings=settings,
            clock=environment.clock,
            connect=lambda region: environment.connect(region.name, self.doom),
        )

    def work(self, now_s: float) -> bool:
        """See `Machine.work`."""
        assert self.manager is not None
        self.manager.listen()
        done = self.manager.step(now_s)
        self.environment.watch(self.name, [model.failure for model in self._models if model.failure is not None])
        return done

    def crash(self) -> None:
        """See `Machine.crash`."""
        self.manager = None
