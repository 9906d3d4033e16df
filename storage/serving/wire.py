"""Bytes between a store's server and its clients: lookup requests and replies, JSON answers, JSON errors.

A lookup request's body is the keys, uint64 little-endian, nothing else. Its reply is, little-endian:

    magic `EKR1` | dim u32 | N u32 | length of state u32 | rows int32[N, dim] | found, N bits, lowest bit first | state

where `state` is an encoded `ReplicaState` (schemas/FORMAT.md). Rows are as stored; the reader adds the initialiser.
"""

import json
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from ekko.schemas import errors
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import BadInput, EkkoError, FormatError
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import Member, ReplicaState
from ekko.storage.serving.served import MAX_LOOKUP_KEYS, Checksum, Health, Lookup, TakenSnapshot, UpdateLatency

MAGIC = b"EKR1"
_HEADER = struct.Struct("<4sIII")

MODEL_JSON = TypeAdapter(ModelDeclaration)
MODELS_JSON = TypeAdapter(list[ModelDeclaration])
MEMBERS_JSON = TypeAdapter(list[Member])
CHECKSUM_JSON = TypeAdapter(Checksum)
LATENCY_JSON = TypeAdapter(UpdateLatency)
HEALTH_JSON = TypeAdapter(Health)
SNAPSHOT_JSON = TypeAdapter(TakenSnapshot)


def encode_keys(keys: UInt64s) -> bytes:
    """The body of a lookup request."""
    return keys.astype("<u8", copy=False).tobytes()


def decode_keys(body: bytes) -> UInt64s:
    """Keys of a request: uint64[N], a read-only view.

    Raises:
        BadInput: not a whole number of keys, or too many.
    """
    if len(body) % 8:
        raise BadInput(
            f"body of {len(body)} bytes is no whole number of keys", hint="send keys as uint64 little-endian"
        )
    if len(body) > 8 * MAX_LOOKUP_KEYS:
        raise BadInput(
            f"{len(body) // 8} keys in one request, at most {MAX_LOOKUP_KEYS} are allowed", hint="split the lookup"
        )
    return np.frombuffer(body, dtype="<u8")


def encode_lookup(lookup: Lookup, state: bytes) -> bytes:
    """A reply's body; `state` is `lookup.state`, encoded (kept by the caller, for it changes less often)."""
    count, dim = lookup.rows.shape
    rows = np.ascontiguousarray(lookup.rows.astype("<i4", copy=False))
    found = np.packbits(lookup.found, bitorder="little")
    return b"".join((_HEADER.pack(MAGIC, dim, count, len(state)), rows.data, found.data, state))


class Reply(NamedTuple):
    """A lookup's answer as it came: rows as stored int32[N, dim], found bool[N], encoded replica states."""

    rows: Int32s
    found: npt.NDArray[np.bool_]
    states: tuple[bytes, ...]


def decode_lookup(body: bytes) -> Reply:
    """The rows of a reply: views of `body` where that is possible. The state is decoded by who wants it (`read_state`).

    Raises:
        FormatError: not such a reply, or cut short.
    """
    if len(body) < _HEADER.size or body[:4] != MAGIC:
        raise FormatError(f"{len(body)} bytes starting {body[:8].hex()} are no lookup reply")
    _, dim, count, state_length = _HEADER.unpack_from(body)
    found_at = _HEADER.size + 4 * dim * count
    state_at = found_at + (count + 7) // 8
    if len(body) != state_at + state_length:
        raise FormatError(f"lookup reply of {len(body)} bytes, {state_at + state_length} were announced")
    rows = np.frombuffer(body, "<i4", count=dim * count, offset=_HEADER.size).reshape(count, dim)
    bits = np.frombuffer(body, np.uint8, count=state_at - found_at, offset=found_at)
    found = np.unpackbits(bits, count=count, bitorder="little").view(np.bool_)
    return Reply(rows, found, (body[state_at:],))


def read_state(data: bytes, codec: Codec) -> ReplicaState:
    """The replica state that a reply carries; raises FormatError."""
    state = codec.decode(data)
    if not isinstance(state, ReplicaState):
        raise FormatError(f"lookup reply carries a {type(state).__name__} instead of a ReplicaState")
    return state


def encode_signal(metric: str, value: float, count: int, cohort: str, event_us: int | None = None) -> bytes:
    """The body of a reported measurement; `event_us` is when it happened, None for now."""
    body = {"metric": metric, "value": float(value), "count": int(count), "cohort": cohort, "event_us": event_us}
    return json.dumps(body).encode()


def encode_error(error: EkkoError, where: str) -> bytes:
    """JSON of an error: `code` is the class in Ekko's error tree."""
    fields = {"code": type(error).__name__, "what": error.message, "where": where, "hint": error.hint}
    return json.dumps({"error": fields}).encode()


def decode_error(body: bytes, fallback: str) -> EkkoError:
    """The error in a reply, as the class it had at the server; `fallback` tells of a body that is none of ours."""
    try:
        fields: dict[str, Any] = json.loads(body)["error"]
        kind = getattr(errors, fields["code"], EkkoError)
        error: EkkoError = kind(f"{fields['what']} ({fields['where']})", hint=fields["hint"])
    except (ValueError, KeyError, TypeError):
        return EkkoError(fallback)
    return error
