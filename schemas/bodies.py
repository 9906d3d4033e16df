"""Messages <-> Avro bodies (plain dicts): columns as bytes, NamedTuples and enums as their plain values.

Everything read is checked here, so that a message in memory is always consistent: lengths agree, numbers are in range.
"""

from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from typing import Any

import numpy as np

from ekko.schemas.blocks import DeltaBlock, LaneBlock, Purpose
from ekko.schemas.declarations import ModelDeclaration, SchemaDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange, ModelState, Settled, Verdict
from ekko.schemas.errors import BadInput, FormatError
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s, pack, unpack
from ekko.schemas.replicas import FanoutState, LanePosition, Member, ReplicaState, SeqRun, ShardPosition, Undone

Body = dict[str, Any]
_COLUMNS = frozenset({"keys", "deltas", "created", "dim", "width"})


def to_body(message: Any) -> Body:
    """The Avro body of a message: plain values, lists and dicts."""
    if isinstance(message, DeltaBlock | LaneBlock):
        return _block_to_body(message)
    if isinstance(message, ReplicaState):
        return _replica_to_body(message)
    if isinstance(message, SchemaDeclaration):
        return {**_fields_to_body(message), "fingerprint": message.fingerprint.to_bytes(8, "little")}
    return _fields_to_body(message)


def _fields_to_body(message: Any) -> Body:
    return {field.name: _plain(getattr(message, field.name)) for field in fields(message)}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | bytes | dict):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value
    if hasattr(value, "_asdict"):
        return {name: _plain(member) for name, member in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return to_body(value)


def _replica_to_body(state: ReplicaState) -> Body:
    shards = [{"shard": shard, **_fields_to_body(position)} for shard, position in sorted(state.shards.items())]
    plain = {name: _plain(getattr(state, name)) for name in ReplicaState.__slots__ if name != "shards"}
    return {**plain, "shards": shards}


def _block_to_body(block: DeltaBlock | LaneBlock) -> Body:
    width, deltas = pack(block.deltas)
    body = {field.name: _plain(getattr(block, field.name)) for field in fields(block) if field.name not in _COLUMNS}
    body |= {"dim": block.deltas.shape[1], "width": width, "deltas": deltas}
    body["keys"] = block.keys.astype("<u8", copy=False).tobytes()
    if isinstance(block, DeltaBlock):
        body["created"] = b"" if block.created is None else np.packbits(block.created, bitorder="little").tobytes()
    return body


def _columns(body: Body) -> tuple[UInt64s, Int32s]:
    if len(body["keys"]) % 8:
        raise FormatError(f"{len(body['keys'])} bytes of keys are no whole uint64 numbers")
    keys = np.frombuffer(body["keys"], dtype="<u8")
    try:
        deltas = unpack(body.pop("width"), body["deltas"], body.pop("dim"))
    except BadInput as error:
        raise FormatError(error.message) from error
    if len(deltas) != len(keys):
        raise FormatError(f"{len(keys)} keys but {len(deltas)} delta rows")
    return keys, deltas


def _delta_block(body: Body) -> DeltaBlock:
    body["keys"], body["deltas"] = _columns(body)
    count = len(body["keys"])
    bits = np.frombuffer(body.pop("created"), dtype=np.uint8)
    if len(bits) not in (0, (count + 7) // 8):
        raise FormatError(f"{len(bits)} bytes of created flags for {count} rows")
    body["created"] = np.unpackbits(bits, count=count, bitorder="little").astype(np.bool_) if len(bits) else None
    body["purpose"] = Purpose(body["purpose"])
    return DeltaBlock(**body)


def _lane_block(body: Body) -> LaneBlock:
    body["keys"], body["deltas"] = _columns(body)
    body["settled"] = Settled(**body["settled"])
    body["barrier"] = _barrier(body["barrier"]) if body["barrier"] is not None else None
    if body["newest_arrival"] is not None and body["newest_arrival"] < body["arrival"]:
        raise FormatError(f"newest arrival {body['newest_arrival']} before the oldest, {body['arrival']}")
    return LaneBlock(**body)


def _ranges(plain: list[Body]) -> tuple[EpochRange, ...]:
    return tuple(EpochRange(**entry) for entry in plain)


def _barrier(body: Body) -> Barrier:
    body |= {"voids": _ranges(body["voids"]), "withdrawn": _ranges(body["withdrawn"]), "denied": tuple(body["denied"])}
    return Barrier(**body)


def _fanout_state(body: Body) -> FanoutState:
    body |= {"settled": Settled(**body["settled"]), "voids": _ranges(body["voids"])}
    return FanoutState(**body)


def _model_state(body: Body) -> ModelState:
    body |= {"offsets": tuple(body["offsets"]), "verdict": Verdict(body["verdict"])}
    return ModelState(**body)


def _shard_position(body: Body) -> ShardPosition:
    body |= {"express": LanePosition(**body["express"]), "bulk": LanePosition(**body["bulk"])}
    body["ahead"] = tuple(SeqRun(**run) for run in body["ahead"])
    return ShardPosition(**body)


def _replica_state(body: Body) -> ReplicaState:
    shards = {position.pop("shard"): _shard_position(position) for position in body["shards"]}
    return ReplicaState(**{**body, "shards": shards, "voids": _ranges(body["voids"])})


def _member(body: Body) -> Member:
    states = {name: tuple(_replica_state(state) for state in body[name]) for name in ("models", "durable")}
    undone = tuple(Undone(**{**entry, "void": EpochRange(**entry["void"])}) for entry in body["undone"])
    return Member(**{**body, **states, "undone": undone})


def _model(body: Body) -> ModelDeclaration:
    return ModelDeclaration(**{**body, "tables": tuple(TableDeclaration(**table) for table in body["tables"])})


def _schema(body: Body) -> SchemaDeclaration:
    return SchemaDeclaration(**{**body, "fingerprint": int.from_bytes(body["fingerprint"], "little")})


_READERS: dict[type, Callable[[Body], Any]] = {
    DeltaBlock: _delta_block,
    LaneBlock: _lane_block,
    Barrier: _barrier,
    FanoutState: _fanout_state,
    ModelState: _model_state,
    ReplicaState: _replica_state,
    Member: _member,
    ModelDeclaration: _model,
    SchemaDeclaration: _schema,
}


def from_body(message: type, body: Body) -> Any:
    """The message of type `message` with this body.

    Raises:
        FormatError, ConfigurationError, ValueError: the body contradicts itself.
    """
    reader = _READERS.get(message)
    return message(**body) if reader is None else reader(body)
