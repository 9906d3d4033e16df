"""One message of every kind, with every field set: what golden files hold and codec tests go through."""

from typing import Any

import numpy as np

from ekko.schemas.blocks import DeltaBlock, LaneBlock, Purpose
from ekko.schemas.codec import Kind
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, SchemaDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, ModelState, Settled, Verdict
from ekko.schemas.replicas import FanoutState, LanePosition, Member, ReplicaState, SeqRun, ShardPosition, Undone
from ekko.schemas.signals import AuditEntry, Rejection, Shares, Signal

BARRIER = Barrier(
    3,
    17,
    2,
    40,
    (EpochRange(4, 9),),
    (EpochRange(0, 3), EpochRange(5, 8)),
    ("trainer-7",),
    1_700_000_000_000_001,
    10,
    True,
)
REPLICA = ReplicaState(
    model="ctr",
    incarnation=3,
    region_incarnation=1,
    shards={
        0: ShardPosition(LanePosition(10, 8, 0), LanePosition(5, 7, 1), 7, (SeqRun(9, 9, 16),), 15, 2),
        3: ShardPosition(),
    },
    voids=(EpochRange(4, 9),),
    catalogue=40,
    bound=10,
)
KEYS = np.array([1, 2**63 + 5, 42], dtype=np.uint64)
DELTAS = np.array([[1, -1], [300, 0], [-32768, 32767]], dtype=np.int32)

EXAMPLES: dict[Kind, Any] = {
    Kind.DELTA_BLOCK: DeltaBlock(
        incarnation=3,
        table="embedding",
        shard=2,
        keys=KEYS,
        deltas=DELTAS,
        created=np.array([True, False, True]),
        purpose=Purpose.RETRACT,
        trainer="trainer-1",
        generation=2,
        catalogue=40,
        effective=11,
        operation="retract-7f3a/12",
        trainer_position=b"\x00position",
        published_us=1_700_000_000_000_000,
    ),
    Kind.BARRIER: BARRIER,
    Kind.LANE_BLOCK: LaneBlock(
        incarnation=3,
        region_incarnation=1,
        shard=2,
        seq=99,
        previous=97,
        arrival=17,
        effective=16,
        generation=2,
        settled=Settled(1234, 16, 2),
        upto=1300,
        catalogue=40,
        table="embedding",
        keys=KEYS,
        deltas=DELTAS * 65536,
        barrier=BARRIER,
        published_us=1_700_000_000_000_000,
        newest_arrival=19,
    ),
    Kind.FANOUT_STATE: FanoutState(3, 1, 2, 99, 99, 97, 1300, Settled(1234, 16, 2), 88, 12, 40, (EpochRange(4, 9),)),
    Kind.MODEL_STATE: ModelState("ctr", 3, 17, 2, (100, 200), Verdict.HEALTHY, "complete everywhere", True, 5, 6),
    Kind.MEMBER: Member(
        *("east", "0", "127.0.0.1:7070", True, 1, 2, (REPLICA,), (REPLICA,), {"ctr/1": "why"}),
        undone=(Undone("ctr", 3, EpochRange(4, 9), 77, 8),),
    ),
    Kind.SIGNAL: Signal("ctr", "east", "serving/web-1", "log_loss", 12.5, 40, 1_700_000_000_000_000, "baseline"),
    Kind.SHARES: Shares("ctr", 3, 0.25, 0.125, 1_700_000_000_000_000),
    Kind.REJECTION: Rejection(
        "ctr", 3, 2, 77, "wrong_dim", "dim 8, table has 4", "trainer-1", "embedding", 9, b"EK\x01"
    ),
    Kind.AUDIT_ENTRY: AuditEntry("ctr", "rollback", "ann", "bad trainer", 7, {"state": "16"}),
    Kind.MODEL: ModelDeclaration(
        "ctr", 4, 2, (TableDeclaration("embedding", 2, 20, "uniform", 0.5, 7, 2.5, 3),), 1000, 3, True
    ),
    Kind.REGION: RegionDeclaration("east", "10.0.0.1:9092", 1, False, "west"),
    Kind.SCHEMA: SchemaDeclaration(2, 0x0123456789ABCDEF, '"long"'),
    Kind.REPLICA_STATE: REPLICA,
}


def same(left: Any, right: Any) -> bool:
    """Equality of messages, columns compared by value."""
    if isinstance(left, DeltaBlock | LaneBlock):
        return type(left) is type(right) and all(
            np.array_equal(getattr(left, name), getattr(right, name)) for name in type(left).__slots__
        )
    return bool(left == right)
