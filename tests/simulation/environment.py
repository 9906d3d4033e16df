"""What all simulated processes share: brokers, time, chance, and the weather."""

import random
from collections.abc import Callable, Iterable

from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.errors import (
    BadInput,
    ConfigurationError,
    FormatTooNew,
    GapError,
    MemoryExhausted,
    StateUnavailable,
    StoreCorrupt,
)
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.log import Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from tests.simulation.clock import Clock
from tests.simulation.faults import Doom, SeededFaults, Weather
from tests.simulation.scenario import Scenario

CENTRAL = "central"
FOUNDED = "south"
"""The region that some scenarios found in mid-life."""

_BROKEN = (GapError, BadInput, FormatTooNew, ConfigurationError, StoreCorrupt, StateUnavailable, MemoryExhausted)


class Environment:
    """One world's surroundings.

    Attributes:
        brokers: by cluster name; a region without its own broker has the central one.
        trace: called with a line for everything worth telling.
    """

    def __init__(self, scenario: Scenario, trace: Callable[[str], None]) -> None:
        self.scenario = scenario
        self.trace = trace
        self.clock = Clock()
        self.rng = random.Random(scenario.seed)
        self.weather = Weather()
        central = MemoryBroker(self.clock, self._decide)
        self.brokers = {CENTRAL: central}
        for region in (*scenario.regions, FOUNDED) if scenario.founds else scenario.regions:
            self.brokers[region] = MemoryBroker(self.clock, self._decide) if scenario.own_brokers else central

    def _decide(self) -> bool:
        return self.rng.random() < 0.5

    def connect(self, cluster: str, doom: Doom) -> MemoryCluster:
        """A process's connection to a cluster, with faults in between."""
        faults = SeededFaults(cluster, self.weather, self.clock, self.rng, doom)
        return MemoryCluster(self.brokers[cluster], faults)

    def healthy(self, cluster: str = CENTRAL) -> MemoryCluster:
        """A connection on which nothing goes wrong, for whoever sets the stage."""
        return MemoryCluster(self.brokers[cluster])

    def source_ends(self) -> tuple[int, ...]:
        """By shard, where the source log ends now, whatever of it is committed."""
        source = [Partition(topics.deltas(self.scenario.model), shard) for shard in range(self.scenario.shards)]
        return tuple(self.brokers[CENTRAL].log(partition).high for partition in source)

    def declare(self, tables: tuple[TableDeclaration, ...]) -> None:
        """Declare regions and model; again with more tables to add them at run time."""
        scenario = self.scenario
        regions = tuple(
            RegionDeclaration(region, bootstrap=region if scenario.own_brokers else "") for region in scenario.regions
        )
        model = ModelDeclaration(scenario.model, scenario.shards, scenario.shard_groups, tables)
        declare(self.healthy(), Declarations(regions, (model,)), lambda region: self.healthy(region.name))

    def watch(self, name: str, errors: Iterable[BaseException]) -> None:
        """Tell apart what a process must bear from what must not happen: brokers come and go, gaps do not."""
        for error in errors:
            assert not isinstance(error, _BROKEN), f"{name}: {type(error).__name__}: {error}"

    def log(self, line: str) -> None:
        """Tell what happens, with the time."""
        self.trace(f"{self.clock.now_s % 1000:8.3f} {line}")
