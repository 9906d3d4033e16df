"""What all shard groups of a region's fan-out share."""

from collections import Counter
from dataclasses import dataclass, field

from ekko.schemas.declarations import RegionDeclaration
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.budget import Budget
from ekko.streams.fanout.memory import MemoryBound
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.fanout.sorting import Sorter
from ekko.streams.fanout.trainers import TrainersHeard
from ekko.streams.log import Cluster


@dataclass(frozen=True, slots=True)
class RegionContext:
    """The clusters, the region as declared, and what is common to all its models."""

    central: Cluster
    regional: Cluster
    region: RegionDeclaration
    catalogue: SharedCatalogue
    sorter: Sorter
    budget: Budget
    memory: MemoryBound
    settings: FanoutSettings
    refused: Counter[str] = field(default_factory=Counter)
    """Model -> bad source records since they were last reported to the monitor."""
    trainers: TrainersHeard = field(default_factory=TrainersHeard)
    """Whose blocks came since it was last reported to the monitor."""
