"""Where a replica stands: lane positions, seqs, voids; the version vector and its partial order."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ekko.schemas.epochs import EpochRange, Settled


class LanePosition(NamedTuple):
    """Next offset to read of a lane partition, the last seq applied from it, and the leader epoch of that record."""

    offset: int = 0
    seq: int = 0
    leader_epoch: int = -1


_START = LanePosition()


class SeqRun(NamedTuple):
    """Seqs first..last applied ahead of the contiguous prefix; `settled` is the highest settled epoch they carried."""

    first: int
    last: int
    settled: int


@dataclass(frozen=True, slots=True)
class ShardPosition:
    """One shard's place in both lanes.

    Attributes:
        contiguous: every seq up to it, of both lanes, is applied.
        ahead: runs applied beyond it.
        complete: the last model state at which this shard is complete.
        generation: the generation of the last barrier applied.
    """

    express: LanePosition = _START
    bulk: LanePosition = _START
    contiguous: int = 0
    ahead: tuple[SeqRun, ...] = ()
    complete: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A model's version vector at one replica, stored with the rows and carried by every reply.

    Attributes:
        voids: all voids undone and dropped on arrival.
        catalogue: catalogue offset (end) reached.
        bound: the oldest model state that can be undone here.
        shards: shard -> position.
    """

    model: str
    incarnation: int
    region_incarnation: int
    shards: dict[int, ShardPosition]
    voids: tuple[EpochRange, ...] = ()
    catalogue: int = 0
    bound: int = 0

    @property
    def complete(self) -> int:
        """The last model state at which every owned shard is complete."""
        return min((position.complete for position in self.shards.values()), default=0)

    def dominates(self, other: "ReplicaState") -> bool:
        """Whether this replica has applied all that `other` has (same model, region and shards); a partial order."""
        same = (self.model, self.incarnation, self.region_incarnation, self.shards.keys()) == (
            other.model,
            other.incarnation,
            other.region_incarnation,
            other.shards.keys(),
        )
        return (
            same
            and set(self.voids) >= set(other.voids)
            and all(
                mine.express.offset >= other.shards[shard].express.offset
                and mine.bulk.offset >= other.shards[shard].bulk.offset
                for shard, mine in self.shards.items()
            )
        )


class Undone(NamedTuple):
    """A void that a replica has taken back: the rows that changed there, and when, microseconds since 1970."""

    model: str
    incarnation: int
    void: EpochRange
    rows: int
    at_us: int


@dataclass(frozen=True, slots=True)
class Member:
    """A replica's announcement in `ekko.<region>.members`, keyed by replica, every second and at each change.

    Attributes:
        address: host:port of its HTTP server.
        ready: every lane was read to the ends seen at start.
        models: what is readable here; durable: what would survive a kill -9 (as of the last flush).
        halted: "model/shard" -> why it stands still here.
        undone: the last voids taken back, oldest first; those of earlier lives as far as they were announced.
    """

    region: str
    replica: str
    address: str
    ready: bool
    started_us: int
    written_us: int
    models: tuple[ReplicaState, ...] = ()
    durable: tuple[ReplicaState, ...] = ()
    halted: dict[str, str] = field(default_factory=dict)
    undone: tuple[Undone, ...] = ()


@dataclass(frozen=True, slots=True)
class FanoutState:
    """A fan-out shard's place, written in each of its transactions: all that a takeover needs.

    Attributes:
        seq, express_seq, bulk_seq: last seq over both lanes, and in each.
        upto: source offset (end) read so far.
        express_start, bulk_start: lane offsets at or before which the records of unsettled epochs begin.
    """

    incarnation: int
    region_incarnation: int
    shard: int
    seq: int
    express_seq: int
    bulk_seq: int
    upto: int
    settled: Settled
    express_start: int
    bulk_start: int
    catalogue: int = 0
    voids: tuple[EpochRange, ...] = ()
