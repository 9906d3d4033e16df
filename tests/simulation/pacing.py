"""A region with too little bandwidth, under pressure for as long as a seed lasts: what must hold of who goes when.

The world of `world` is about exactness, its trainers pause and its links recover. Here larger updates come all the
time, and small ones must get through all the same: starvation, promotion, budget and memory bounds are what is checked.
"""

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, LaneBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.streams.catalogue import Catalogue
from ekko.streams.catalogue.declaring import declare
from ekko.streams.catalogue.plan import Declarations
from ekko.streams.fanout.budget import HORIZON_S, SAVED_S
from ekko.streams.fanout.region import RegionFanout
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.fanout.shard import ShardFanout
from ekko.streams.log import Output, Partition
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster
from tests.simulation.checks.as_of import check_lanes_as_of
from tests.simulation.checks.seqs import check_barriers_forwarded, check_seqs_contiguous
from tests.simulation.checks.settled import check_all_settled, check_settled_is_honest
from tests.simulation.checks.united import check_united_after_told
from tests.simulation.lanes import read_region
from tests.simulation.truth import Truth, committed, decoded

MODEL, REGION, DIM = "ctr", "east", 8
STEP_S, PRESSURE_S = 0.02, 8.0
AWAY_S = 3.0
"""How long one of two instances stays dead: the other must take over."""

NO_BOUND = 1 << 30
ROW_BYTES = 8 + 2 * DIM
CROWD, VICTIMS, GROWER = 3_000, 100_000, 200_000
"""First keys: of rows that come with large changes all the time, of single small ones, and of one that gathers."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a seed decides.

    Attributes:
        rate: bandwidth, bytes a second; burst: rows of the crowd a step, two to six times what the rate carries.
        bound: bytes of memory for what waits. instances: fan-outs that share the shards. kills: chance a step.
        epoch_s: seconds between barriers. kept: each withdraws the states before it but for one in so many; 0: none.
        rollbacks, retractions: chances a barrier, and a step.
    """

    rate: float
    burst: int
    share: float
    max_age_s: float
    bound: int
    instances: int
    kills: float
    epoch_s: float
    kept: int
    rollbacks: float
    retractions: float


def pressure_of(seed: int) -> Pressure:
    """The world of a seed."""
    rng = random.Random(f"pressure {seed}")
    rate = rng.choice((20_000.0, 60_000.0))
    return Pressure(
        rate,
        int(rng.uniform(2, 6) * rate * STEP_S / ROW_BYTES),
        rng.choice((0.1, 0.25)),
        rng.choice((0.3, 1.0)),
        rng.choice((NO_BOUND, NO_BOUND, 160 * 1024)),
        rng.choice((1, 1, 2)),
        rng.choice((0.0, 0.004)),
        rng.choice((2.0, 0.4, 0.4)),
        rng.choice((0, 3, 5)),
        rng.choice((0.0, 0.0, 0.15)),
        rng.choice((0.0, 0.05)),
    )


class PacingWorld:
    """One shard, a region's fan-outs, and time in steps."""

    def __init__(self, seed: int, pressure_s: float = PRESSURE_S) -> None:
        self._pressure_s = pressure_s
        self.pressure, self.now_s, self.epoch, self.deaths = pressure_of(seed), 1_000.0, 0, 0
        self._history = random.Random(f"history {seed}")
        self._rng, self._random = random.Random(seed), np.random.default_rng(seed)
        self.broker = MemoryBroker(lambda: self.now_s)
        self.cluster = MemoryCluster(self.broker)
        model = ModelDeclaration(MODEL, shards=1, tables=(TableDeclaration("t", DIM),))
        declare(self.cluster, Declarations((RegionDeclaration(REGION),), (model,)), lambda _: self.cluster)
        catalogue = Catalogue(self.cluster)
        self._catalogue_end = catalogue.refresh()
        self._incarnation = catalogue.model(MODEL).incarnation or 0
        self._writer = self.cluster.transactional_writer("trainer")
        self._fanouts = {str(number): self._start(str(number)) for number in range(self.pressure.instances)}
        self._back_at_s: dict[str, float] = {}
        self.victims: dict[int, tuple[float, int, int]] = {}
        """key -> when it was published, in which epoch, and how many rows waited then."""
        self._voids: tuple[EpochRange, ...] = ()
        self._withdrawn: list[set[int]] = [set()]
        """By barrier, all states that are withdrawn in it."""

    def _start(self, name: str) -> RegionFanout:
        settings = FanoutSettings(
            bandwidth_bytes_per_s=self.pressure.rate,
            bulk_share=self.pressure.share,
            bulk_max_age_s=self.pressure.max_age_s,
            pending_bytes=self.pressure.bound,
            retry_s=0.1,
        )
        clock = lambda: self.now_s  # noqa: E731 - a name would say no more
        return RegionFanout(self.cluster, self.cluster, REGION, settings=settings, clock=clock, instance=name)

    def run(self) -> None:
        """Pressure first, then none until all has arrived; every step is checked, and in the end everything."""
        next_epoch_s = self.now_s + self.pressure.epoch_s
        for turn in range(round(self._pressure_s / STEP_S)):
            self._publish(CROWD + self._random.choice(CROWD, self.pressure.burst, replace=False), 3_000)
            self._publish(np.array([GROWER]), 3_000)
            if turn % 25 == 10:
                self.victims[VICTIMS + turn] = self.now_s, self.epoch, sum(at.pending.rows for at in self._shards())
                self._publish(np.array([VICTIMS + turn]), 1)
            if self.now_s > next_epoch_s:
                next_epoch_s += self.pressure.epoch_s
                self._barrier(rollback=self._history.random() < self.pressure.rollbacks)
            if self._history.random() < self.pressure.retractions:
                self._publish(CROWD + np.arange(20), 500, effective=self._history.randint(0, self.epoch))
            if self._fanouts and self._rng.random() < self.pressure.kills:
                self._kill()
            self._step()
        self._barrier()
        for _ in range(200_000):
            if not self._step() and not self._waiting() and not self._back_at_s:
                break
        self._check()

    def _publish(self, keys: npt.NDArray[np.integer], size: int, effective: int | None = None) -> None:
        chosen = np.unique(keys.astype(np.uint64))
        deltas = np.full((len(chosen), DIM), size, np.int32)
        self._append(
            DeltaBlock(
                self._incarnation,
                "t",
                0,
                chosen,
                deltas,
                purpose=Purpose.TRAIN if effective is None else Purpose.RETRACT,
                generation=len(self._voids),
                effective=effective,
                catalogue=self._catalogue_end,
                published_us=int(self.now_s * 1e6),
            )
        )

    def _barrier(self, *, rollback: bool = False) -> None:
        """Open an epoch; a rollback goes to a state that is not withdrawn, and withdrawn is what lies behind."""
        withdrawn, kept = set(self._withdrawn[-1]), self.pressure.kept
        if rollback:
            targets = [state for state in range(max(0, self.epoch - 5), self.epoch + 1) if state not in withdrawn]
            self._voids += (EpochRange(self._history.choice(targets), self.epoch),)
        elif kept:
            withdrawn |= {state for state in range(1, self.epoch) if state % kept}
        self.epoch += 1
        self._withdrawn.append(withdrawn)
        runs = tuple(EpochRange(state, state) for state in sorted(withdrawn))
        self._append(Barrier(self._incarnation, self.epoch, len(self._voids), self._catalogue_end, self._voids, runs))

    def _append(self, message: object) -> None:
        self._writer.transact([Output(Partition(topics.deltas(MODEL), 0), encode(message))])

    def _kill(self) -> None:
        name = self._rng.choice(sorted(self._fanouts))
        del self._fanouts[name]
        self._back_at_s[name] = self.now_s + (AWAY_S if self._fanouts else 0.0)
        self.deaths += 1

    def _step(self) -> bool:
        self.now_s += STEP_S
        for name in [name for name, back_s in self._back_at_s.items() if back_s <= self.now_s]:
            del self._back_at_s[name]
            self._fanouts[name] = self._start(name)
        done = [fanout.step(self.now_s) for fanout in self._fanouts.values()]
        for fanout in self._fanouts.values():  # a shard that moves is held by two processes for a while
            waits = sum(shard.pending.nbytes for shard in self._shards(fanout))
            assert waits <= self.pressure.bound, f"{waits} bytes wait, {self.pressure.bound} are allowed a process"
        if self.pressure.bound == NO_BOUND:
            for shard in self._shards():
                self._check_few_sums(shard)
        return any(done)

    def _check_few_sums(self, shard: ShardFanout) -> None:
        """What waits is parted by the states that are kept only, whatever the number of epochs in which it arrived."""
        epoch = shard.intake.epoch.epoch
        withdrawn = self._withdrawn[max(0, epoch - 1)]  # a barrier's are united once the next one is there
        bound = 1 + sum(state not in withdrawn for state in range(shard.settled.epoch + 1, epoch + 1))
        arrivals = {group.arrival for group, _ in shard.pending.tables()}
        assert len(arrivals) <= bound, f"sums of {len(arrivals)} arrival epochs wait, there are {bound} kept states"
        fresh = {group for group, _ in shard.pending.tables() if group.effective >= group.arrival}
        assert len(fresh) <= bound, f"{len(fresh)} sums wait, there are {bound} kept states"

    def _shards(self, *fanouts: RegionFanout) -> list[ShardFanout]:
        groups = [group for fanout in fanouts or self._fanouts.values() for group in fanout.groups.values()]
        return [shard for group in groups for shard in group._shards.values()]

    def _waiting(self) -> bool:
        return any(shard.pending.rows or shard.forgotten for shard in self._shards())

    # ---- checks ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        truth, log = Truth(self.broker, MODEL), read_region(self.broker, MODEL, REGION, 1)
        check_seqs_contiguous(log)
        check_barriers_forwarded(log, self.epoch)
        check_settled_is_honest(truth, log)
        check_all_settled(truth, log)
        check_lanes_as_of(truth, log)
        check_united_after_told(truth, log)
        self._check_budget()
        if self.pressure.bound == NO_BOUND:  # what was forgotten waits for the end of its epoch, too
            self._check_nobody_starves()
            # A row that gathers needs some time in one epoch, and that it is not taken back.
            if self.pressure.epoch_s >= PRESSURE_S / 4 and not self._voids:
                self._check_promotion()

    def _sent(self, lane: Lane) -> list[tuple[float, LaneBlock]]:
        records = committed(self.broker, Partition(topics.lane(MODEL, REGION, lane), 0))
        blocks = [(record.timestamp_ms / 1e3, decoded(record.value)) for record in records]
        return [(at_s, block) for at_s, block in blocks if isinstance(block, LaneBlock) and len(block.keys)]

    def _check_budget(self) -> None:
        """No transaction carries more than HORIZON_S of the budget in bulk, nor any second more than is saved up."""
        times = np.array([at_s for at_s, _ in self._sent(Lane.BULK)])
        sizes = np.array([len(block.keys) * (8 + DIM) for _, block in self._sent(Lane.BULK)])  # at least
        for at_s in np.unique(times):
            together = sizes[times == at_s].sum()
            assert together <= max(self.pressure.rate * HORIZON_S, 2 * ROW_BYTES), f"{together} bytes of bulk at once"
            second = sizes[(times >= at_s) & (times < at_s + 1.0)].sum()
            assert second <= self.pressure.rate * (1.0 + SAVED_S + HORIZON_S), f"{second} bytes of bulk in a second"

    def _check_nobody_starves(self) -> None:
        """A row waits `max_age_s`, and then for the rows that go before it, at `share` of the rate.

        These are what waited when it came, of all epochs, and what else its own epoch brings.
        """
        arrived: dict[int, float] = {}
        for at_s, block in sorted(self._sent(Lane.EXPRESS) + self._sent(Lane.BULK), key=lambda entry: entry[0]):
            for key in block.keys[block.keys >= VICTIMS].tolist():
                arrived.setdefault(key, at_s)
        for key, (published_s, epoch, waited) in self.victims.items():
            if any(epoch in void for void in self._voids):
                continue
            before = max(2 * CROWD, waited + CROWD) * ROW_BYTES / (self.pressure.share * self.pressure.rate)
            bound_s = self.pressure.max_age_s + before + AWAY_S * self.deaths + 0.5
            waited_s = arrived[key] - published_s
            assert waited_s <= bound_s, f"a row of small change waited {waited_s:.1f} s, the bound is {bound_s:.1f} s"

    def _check_promotion(self) -> None:
        """The row that gathers most is lifted; each of its updates is like those of the crowd."""
        assert any(GROWER in block.keys for _, block in self._sent(Lane.EXPRESS)), "what gathered most was never lifted"
