"""Taking over a shard group: what waits = all that arrived since the settled barrier, minus all that was sent of it.

The caller has fenced the former writer, so that nothing that is read here can change any more.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from ekko.schemas import topics
from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import GapError
from ekko.schemas.replicas import FanoutState
from ekko.streams.fanout.context import RegionContext
from ekko.streams.fanout.ranges import Range, read_ranges
from ekko.streams.fanout.shard import ShardFanout
from ekko.streams.log import Partition, Record, read_range

_STATE_TAIL = 64


class Takeover:
    """Rebuilds shards of a model from the log."""

    def __init__(self, context: RegionContext, model: ModelDeclaration) -> None:
        self._central, self._regional = context.central, context.regional
        self._model, self._region = model, context.region
        self._catalogue, self._memory = context.catalogue, context.memory
        self._timeout_s = context.settings.timeout_s

    def check_seeded(self, numbers: list[int]) -> None:
        """Refuse to begin at the source log's beginning in a region that is made from a donor's snapshot.

        Raises:
            GapError: a shard's seed is not there yet. Others as `rebuild`.
        """
        if not self._region.is_seeded(self._model):
            return
        missing = sorted(set(numbers) - self._states(numbers).keys())
        if missing:
            raise GapError(
                f"region {self._region.name} is made from {self._region.donor}, and shards {missing} of model "
                f"{self._model.name} have no seed yet",
                hint=f"finish with `ekko region add {self._region.name} --from {self._region.donor}`; this process "
                "then goes on by itself",
            )

    def rebuild(self, numbers: list[int]) -> dict[int, ShardFanout]:
        """The shards with these numbers, each standing where its last committed transaction left it.

        Raises:
            GapError: the log does not hold any more what is needed, or contradicts itself; nothing was changed.
            ConnectionFailed, TopicMissing: as reading does.
        """
        states = self._states(numbers)
        self._catalogue.reach(max((state.catalogue for state in states.values()), default=0), self._timeout_s)
        express = topics.lane(self._model.name, self._region.name, Lane.EXPRESS)
        message_bytes = int(self._regional.topic_settings(express).get("max.message.bytes", "1000000"))
        assert self._region.incarnation is not None
        shards = {
            number: ShardFanout(
                self._model,
                number,
                self._region.incarnation,
                self._catalogue,
                states.get(number),
                message_bytes=message_bytes,
                memory=self._memory,
                fetch=partial(self._fetch, Partition(topics.deltas(self._model.name), number)),
            )
            for number in numbers
        }
        self._read_source(shards, states)
        self._subtract_lanes(shards, states)
        return shards

    def _fetch(self, source: Partition, start: int, end: int) -> Iterator[Record]:
        purpose = "to decide about records that wait for the catalogue"
        return read_ranges(self._central, {source: Range(start, end)}, self._timeout_s, purpose=purpose)

    def _states(self, numbers: list[int]) -> dict[int, FanoutState]:
        """The last committed state of every shard that has one."""
        partitions = [Partition(topics.fanout(self._model.name, self._region.name), number) for number in numbers]
        bounds = self._regional.bounds(partitions)
        # The last record is nearly always near the end; a topic that is not compacted yet may be long.
        tails = {at: max(bound.low, bound.end - _STATE_TAIL) for at, bound in bounds.items()}
        found = self._last_states(tails)
        missing = {at: bounds[at].low for at in partitions if at not in found and bounds[at].low < tails[at]}
        if missing:
            found |= self._last_states(missing)
        return {at.number: state for at, state in found.items()}

    def _last_states(self, starts: Mapping[Partition, int]) -> dict[Partition, FanoutState]:
        records = {record.partition: record for record in read_range(self._regional, starts, timeout_s=self._timeout_s)}
        states: dict[Partition, FanoutState] = {}
        for partition, record in records.items():
            state = self._catalogue.decode(record.value)
            if not isinstance(state, FanoutState) or not self._is_ours(state):
                raise GapError(
                    f"{partition.topic}[{partition.number}] offset {record.offset} is of another model or region of "
                    f"the same name: {state!r}",
                    hint="delete the old model's topics with `ekko model delete`; nothing was changed",
                )
            states[partition] = state
        return states

    def _is_ours(self, message: FanoutState | LaneBlock) -> bool:
        own = self._model.incarnation, self._region.incarnation
        return (message.incarnation, message.region_incarnation) == own

    def _read_source(self, shards: Mapping[int, ShardFanout], states: Mapping[int, FanoutState]) -> None:
        topic = topics.deltas(self._model.name)
        ranges = {Partition(topic, number): Range(0, 0) for number in shards}
        for number, state in states.items():
            # From the settled barrier itself; epoch 0 has none.
            ranges[Partition(topic, number)] = Range(max(state.settled.offset - 1, 0), state.upto)
        unabsorbed_bytes = 0
        for record in read_ranges(self._central, ranges, self._timeout_s, purpose="to take over"):
            shard, state = shards[record.partition.number], states[record.partition.number]
            if record.offset < state.settled.offset:
                shard.intake.start_at(record, state.settled)
                continue
            shard.read(record)
            unabsorbed_bytes += len(record.value or b"")
            if unabsorbed_bytes > self._memory.a_shard // 8:
                unabsorbed_bytes = 0
                for absorbing in shards.values():
                    absorbing.absorb()
        for number, state in states.items():
            shards[number].absorb()
            if shards[number].intake.position != state.upto:
                raise GapError(
                    f"{topic}[{number}]: read to {shards[number].intake.position}, the fan-out state says {state.upto}",
                    hint="the source log is not the one that the state was written for; nothing was changed",
                )

    def _subtract_lanes(self, shards: Mapping[int, ShardFanout], states: Mapping[int, FanoutState]) -> None:
        names = {topics.lane(self._model.name, self._region.name, lane): lane for lane in Lane}
        bounds = self._regional.bounds(Partition(name, number) for name in names for number in shards)
        ranges = {}
        for partition, bound in bounds.items():
            state = states.get(partition.number)
            lane_start = 0 if state is None else _start(state, names[partition.topic])
            ranges[partition] = Range(lane_start, bound.end)
        for record in read_ranges(self._regional, ranges, self._timeout_s, purpose="to take over"):
            block = self._catalogue.decode(record.value)
            number = record.partition.number
            last = states.get(number)
            if not isinstance(block, LaneBlock) or not self._is_ours(block) or last is None or block.seq > last.seq:
                raise GapError(
                    f"{record.partition.topic}[{number}] offset {record.offset} holds a record that the fan-out state "
                    f"(seq {last.seq if last else 0}) knows nothing of",
                    hint="somebody else wrote to the lane, or the fan-out topic lost records; nothing was changed",
                )
            shards[number].subtract_sent(block)
        for number, shard in shards.items():
            ends = [bounds[Partition(name, number)].end for name in names]
            shard.sequencer.committed(dict(zip(names.values(), ends, strict=True)))


def _start(state: FanoutState, lane: Lane) -> int:
    return state.express_start if lane is Lane.EXPRESS else state.bulk_start
