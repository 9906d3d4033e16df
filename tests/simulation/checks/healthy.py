"""A state is called healthy only once it is complete in every region: an automatic rollback may return to it."""

from collections.abc import Iterable

from ekko.schemas import topics
from ekko.schemas.epochs import ModelState, Verdict
from ekko.streams.log import Partition
from ekko.streams.memory.broker import MemoryBroker
from tests.simulation.replica import Replica
from tests.simulation.scenario import Scenario
from tests.simulation.truth import committed, decoded


def check_healthy_is_complete(broker: MemoryBroker, scenario: Scenario, replicas: Iterable[Replica]) -> None:
    """In mid-flight: for every state that is healthy now, each shard of each region has been so far in some replica.

    But for a region that is founded meanwhile, for which nobody waits while it is being made.
    """
    reached = {(region, shard): 0 for region in scenario.regions for shard in range(scenario.shards)}
    for replica in replicas:
        for shard, complete in replica.reached.items() if replica.region in scenario.regions else ():
            reached[replica.region, shard] = max(reached[replica.region, shard], complete)
    for record in committed(broker, Partition(topics.states(scenario.model), 0)):
        state = decoded(record.value)
        if isinstance(state, ModelState) and state.verdict is Verdict.HEALTHY:
            behind = {place: epoch for place, epoch in reached.items() if epoch < state.epoch}
            assert not behind, f"state {state.epoch} is called healthy, and (region, shard) are complete at {behind}"
