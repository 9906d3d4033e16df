"""What a seed decides before the world begins: its shape and how much goes wrong in it."""

import random
from dataclasses import dataclass

from ekko.schemas.declarations import TableDeclaration


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world's shape.

    Attributes:
        founds: a third region is made in mid-life, from a snapshot of the first one.
        own_brokers: each region has a cluster of its own.
        fanouts: instances a region.
        tables: declared at first; `late_table` some time later, if any.
        keys: number of keys that trainers touch.
        ticks: steps of the schedule.
        trainers: whether each of them publishes exactly once, with its input position.
        replica_shards: by region, the shards of each replica.
        budget_bytes_s: bandwidth of the fan-outs, None: unlimited.
        pending_bytes: memory of a fan-out for bulk that waits.
        percentile: of the scores, above which rows are express.
        trouble: 0 (quiet) to 1 (everything at once): scales the chance of every fault.
        bad_input, rollbacks, retractions, withdrawals, denials, condemnations, rewinds: chances a tick.
        retention: chance a tick that it passes by.
        commands: chance that an operator who gets a turn runs a command.
        automatic: rollbacks that managers may do by themselves within an hour.
        hours: chance a tick that the hour of one of these ends. insists: the monitor does not give in, in the end.
    """

    seed: int
    regions: tuple[str, ...]
    own_brokers: bool
    fanouts: int
    model: str
    shards: int
    shard_groups: int
    tables: tuple[TableDeclaration, ...]
    late_table: TableDeclaration | None
    keys: int
    ticks: int
    trainers: tuple[bool, ...]
    replica_shards: dict[str, tuple[tuple[int, ...], ...]]
    budget_bytes_s: float | None
    pending_bytes: int
    percentile: float
    trouble: float
    bad_input: float
    rollbacks: float
    retractions: float
    withdrawals: float
    denials: float
    condemnations: float
    rewinds: float
    commands: float
    founds: bool
    automatic: int
    hours: float
    insists: bool
    retention: float


def scenario_of(seed: int) -> Scenario:
    """The world of a seed."""
    rng = random.Random(f"scenario {seed}")
    shards = rng.randint(1, 4)
    everything = tuple(range(shards))
    regions = ("east", "west")
    return Scenario(
        seed=seed,
        regions=regions,
        own_brokers=rng.random() < 0.3,
        fanouts=rng.choice((1, 1, 2)),
        model="ctr",
        shards=shards,
        shard_groups=rng.randint(1, shards),
        tables=tuple(_table(rng, name) for name in ("wide", "deep")[: rng.randint(1, 2)]),
        late_table=_table(rng, "late") if rng.random() < 0.3 else None,
        keys=rng.choice((4, 12, 40)),
        ticks=rng.randint(40, 140),
        trainers=tuple(rng.random() < 0.5 for _ in range(rng.randint(1, 2))),
        replica_shards={region: _placement(rng, everything) for region in regions},
        budget_bytes_s=rng.choice((None, None, 3_000.0, 30_000.0)),
        pending_bytes=rng.choice((1 << 30, 1 << 30, 400_000, 4_000)),
        percentile=rng.choice((0.0, 50.0, 99.0)),
        trouble=rng.choice((0.0, 0.3, 1.0)),
        bad_input=rng.choice((0.0, 0.03)),
        rollbacks=rng.choice((0.0, 0.015, 0.03)),
        retractions=rng.choice((0.0, 0.03)),
        withdrawals=rng.choice((0.0, 0.02, 0.1)),
        denials=rng.choice((0.0, 0.0, 0.02)),
        condemnations=rng.choice((0.0, 0.08, 0.25)),
        rewinds=rng.choice((0.0, 0.02)),
        commands=rng.choice((0.0, 0.05, 0.15)),
        founds=rng.random() < 0.3,
        automatic=rng.choice((1, 1, 2)),
        hours=rng.choice((0.0, 0.3)),
        insists=rng.random() < 0.5,
        retention=rng.choice((0.0, 0.02)),
    )


def _table(rng: random.Random, name: str) -> TableDeclaration:
    return TableDeclaration(name, rng.choice((1, 2, 5)), fraction_bits=rng.choice((8, 24)))


def _placement(rng: random.Random, everything: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Two replicas of everything, or three of which two share the shards."""
    if len(everything) > 1 and rng.random() < 0.3:
        return everything, everything[::2], everything[1::2]
    return everything, everything
