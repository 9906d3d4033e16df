"""Retention passes by: everything goes that nobody can need any more (DESIGN, law 9: it outlives need, and no more)."""

from collections.abc import Iterable

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane
from ekko.schemas.epochs import ModelState
from ekko.schemas.replicas import FanoutState
from ekko.streams.log import Partition
from ekko.streams.publisher.position import position_shard
from tests.simulation.environment import CENTRAL, Environment
from tests.simulation.replica import Replica
from tests.simulation.trainer import Trainer
from tests.simulation.truth import committed, decoded


class Retention:
    """Knows what is still needed, from what is durable."""

    def __init__(self, environment: Environment, replicas: list[Replica], trainers: list[Trainer]) -> None:
        self._environment, self._scenario = environment, environment.scenario
        self._replicas, self._trainers = replicas, trainers
        self._regions, self._held = [*self._scenario.regions], False

    def hold(self, region: str) -> None:
        """Nothing goes while a region is being founded, whose seed needs what its donor's snapshot needs."""
        self._held = True
        self._regions.append(region)

    def let_go(self) -> None:
        """It is founded."""
        self._held = False

    def pass_by(self, shard: int) -> None:
        """Trim a shard's source and lanes as far as possible."""
        if self._held:
            return
        states = [self._fanout_state(region, shard) for region in self._regions]
        source = Partition(topics.deltas(self._scenario.model), shard)
        needed = [state.settled.offset - 1 if state else 0 for state in states]
        self._trim(CENTRAL, source, [*needed, *self._manager_needs(shard), *self._trainers_need(source)])
        for region, state in zip(self._regions, states, strict=True):
            for lane in Lane:
                start = 0 if state is None else state.express_start if lane is Lane.EXPRESS else state.bulk_start
                partition = Partition(topics.lane(self._scenario.model, region, lane), shard)
                self._trim(region, partition, [start, *self._replicas_need(region, lane, shard)])

    def _trim(self, cluster: str, partition: Partition, needed: Iterable[int]) -> None:
        self._environment.brokers[cluster].trim(partition, max(0, min(needed)))

    def _fanout_state(self, region: str, shard: int) -> FanoutState | None:
        partition = Partition(topics.fanout(self._scenario.model, region), shard)
        records = committed(self._environment.brokers[region], partition)
        if not records:
            return None
        state = decoded(records[-1].value)
        assert isinstance(state, FanoutState)
        return state

    def _manager_needs(self, shard: int) -> Iterable[int]:
        """Barriers after the newest state published are looked for in the source."""
        newest = 0
        partition = Partition(topics.states(self._scenario.model), 0)
        for record in committed(self._environment.brokers[CENTRAL], partition):
            state = decoded(record.value)
            assert isinstance(state, ModelState)
            newest = max(newest, state.offsets[shard])
        yield newest

    def _trainers_need(self, source: Partition) -> Iterable[int]:
        """The last position of every trainer that asks for it."""
        for trainer in self._trainers:
            if trainer.exactly_once and position_shard(trainer.identity, self._scenario.shards) == source.number:
                yield max(self._positions(source, trainer.identity), default=0)

    def _positions(self, source: Partition, trainer: str) -> Iterable[int]:
        for record in committed(self._environment.brokers[CENTRAL], source):
            block = decoded(record.value)
            if isinstance(block, DeltaBlock) and block.trainer == trainer and block.trainer_position:
                yield record.offset

    def _replicas_need(self, region: str, lane: Lane, shard: int) -> Iterable[int]:
        for replica in self._replicas:
            if replica.region == region and shard in replica.shards:
                for vector in replica.durable:
                    place = vector.shards[shard] if vector else None
                    yield 0 if place is None else (place.express if lane is Lane.EXPRESS else place.bulk).offset
