"""Records on the wire: a header that names kind, version and writer schema, then an Avro body (FORMAT.md).

Header, little-endian: magic `EK`, kind u8, format version u8, fingerprint u64 (CRC-64-AVRO of the writer schema's
parsing canonical form). The only file that imports fastavro.
"""

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatch
from functools import cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form

from ekko.schemas.blocks import DeltaBlock, LaneBlock
from ekko.schemas.bodies import from_body, to_body
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration, SchemaDeclaration
from ekko.schemas.epochs import Barrier, ModelState
from ekko.schemas.errors import EkkoError, FormatError, FormatTooNew
from ekko.schemas.replicas import FanoutState, Member, ReplicaState
from ekko.schemas.signals import AuditEntry, Rejection, Shares, Signal

MAGIC = b"EK"
HEADER = struct.Struct("<2sBBQ")
FORMAT_VERSION = 1
HIGHEST = 63
"""No kind or version will ever be higher: chance bytes behind the magic are bad input, not a newer format."""


class Kind(IntEnum):
    """What a record is; numbers are part of the format."""

    DELTA_BLOCK = 1
    BARRIER = 2
    LANE_BLOCK = 3
    FANOUT_STATE = 4
    MODEL_STATE = 5
    MEMBER = 6
    SIGNAL = 7
    SHARES = 8
    REJECTION = 9
    AUDIT_ENTRY = 10
    MODEL = 11
    REGION = 12
    SCHEMA = 13
    REPLICA_STATE = 14


MESSAGES: Mapping[Kind, type] = {
    Kind.DELTA_BLOCK: DeltaBlock,
    Kind.BARRIER: Barrier,
    Kind.LANE_BLOCK: LaneBlock,
    Kind.FANOUT_STATE: FanoutState,
    Kind.MODEL_STATE: ModelState,
    Kind.MEMBER: Member,
    Kind.SIGNAL: Signal,
    Kind.SHARES: Shares,
    Kind.REJECTION: Rejection,
    Kind.AUDIT_ENTRY: AuditEntry,
    Kind.MODEL: ModelDeclaration,
    Kind.REGION: RegionDeclaration,
    Kind.SCHEMA: SchemaDeclaration,
    Kind.REPLICA_STATE: ReplicaState,
}
_KINDS = {message: kind for kind, message in MESSAGES.items()}


_BAD_SCHEMA = (SchemaParseException, UnknownType, ValueError, KeyError, TypeError, RecursionError)
_BAD_BODY = (
    *(EkkoError, SchemaResolutionError, EOFError, ValueError, TypeError, IndexError, OverflowError),
    *(MemoryError, KeyError, RecursionError),
)
"""What fastavro, and the checks of bodies, raise of schemas and bytes that are none; never let out."""


class UnknownSchema(FormatError):
    """The writer schema of a record is not known (yet): it may still come through the catalogue."""


@dataclass(frozen=True, slots=True)
class _OwnSchema:
    """The schema this version writes and reads of one kind."""

    parsed: Any
    fingerprint: int
    text: str


def _fingerprint(parsed: Any) -> int:
    return int(fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO"), 16)


@cache
def _own(kind: Kind) -> _OwnSchema:
    text = resources.files(__package__).joinpath("avro", f"{kind.name.lower()}.avsc").read_text(encoding="utf-8")
    parsed = fastavro.parse_schema(json.loads(text))
    return _OwnSchema(parsed, _fingerprint(parsed), text)


@cache
def _earlier(kind: Kind) -> tuple[_OwnSchema, ...]:
    """The schemas that earlier versions wrote, `<kind>.<number>.avsc`: read for ever, also where no catalogue is."""
    texts = [
        file.read_text(encoding="utf-8")
        for file in resources.files(__package__).joinpath("avro").iterdir()
        if fnmatch(file.name, f"{kind.name.lower()}.*.avsc")
    ]
    parsed = [(fastavro.parse_schema(json.loads(text)), text) for text in texts]
    return tuple(_OwnSchema(schema, _fingerprint(schema), text) for schema, text in parsed)


def own_schemas() -> list[SchemaDeclaration]:
    """The schemas this version writes, as they stand in the catalogue."""
    return [SchemaDeclaration(kind, _own(kind).fingerprint, _own(kind).text) for kind in Kind]


def encode(message: Any) -> bytes:
    """A message's bytes, header included.

    Raises:
        FormatError: a field does not fit the schema (a bug of the caller).
    """
    kind = _KINDS[type(message)]
    own = _own(kind)
    buffer = io.BytesIO()
    buffer.write(HEADER.pack(MAGIC, kind, FORMAT_VERSION, own.fingerprint))
    try:
        fastavro.schemaless_writer(buffer, own.parsed, to_body(message))
    except (ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{kind.name} does not fit its schema: {error}") from error
    return buffer.getvalue()


def kind_of(value: bytes | None) -> Kind:
    """Kind of a record by its header alone.

    Raises:
        FormatError: no header of ours, or a kind this version does not know at a version it should.
        FormatTooNew: the format version is higher than this reader's.
    """
    return _header(value)[0]


def _header(value: bytes | None) -> tuple[Kind, int]:
    if value is None:
        raise FormatError("the record has no value (a tombstone)")
    if len(value) < HEADER.size or value[:2] != MAGIC:
        raise FormatError(f"bad magic: {len(value)} bytes starting {value[:12].hex() or 'with nothing'}")
    _, kind, version, schema = HEADER.unpack_from(value)
    if not 1 <= kind <= HIGHEST or not 1 <= version <= HIGHEST:
        raise FormatError(f"record kind {kind}, format version {version}: both are 1 to {HIGHEST}")
    if version > FORMAT_VERSION:
        raise FormatTooNew(
            f"record of format version {version}, this software reads up to {FORMAT_VERSION}",
            hint="upgrade this process; it goes on where it stopped",
        )
    if kind not in MESSAGES:
        raise FormatError(f"unknown record kind {kind} at format version {version}")
    return Kind(kind), schema


class Codec:
    """Decodes records of every writer schema it knows: its own, earlier ones, and those learnt from the catalogue."""

    def __init__(self) -> None:
        self._writers: dict[tuple[Kind, int], Any] = {
            (kind, schema.fingerprint): schema.parsed for kind in Kind for schema in (_own(kind), *_earlier(kind))
        }

    def learn(self, declaration: SchemaDeclaration) -> None:
        """Accept records written with this schema from now on.

        Raises:
            FormatError: not an Avro schema, or another than its fingerprint says.
        """
        if (declaration.kind, declaration.fingerprint) in self._writers:
            return
        try:
            parsed = fastavro.parse_schema(json.loads(declaration.schema))
            found = _fingerprint(parsed)
        except _BAD_SCHEMA as error:
            raise FormatError(f"schema {declaration.fingerprint:016x} of kind {declaration.kind}: {error}") from error
        if found != declaration.fingerprint:
            raise FormatError(f"schema {declaration.fingerprint:016x} has fingerprint {found:016x}")
        if declaration.kind in MESSAGES:  # a kind of a newer version concerns newer readers only
            self._writers[Kind(declaration.kind), declaration.fingerprint] = parsed

    def decode(self, value: bytes | None) -> Any:
        """The message in a record.

        Fields that the writer added and this reader does not know are dropped; fields it lacks take their defaults.

        Raises:
            UnknownSchema: known version, unknown fingerprint.
            FormatTooNew: see `kind_of`.
            FormatError: everything else that is not a whole, consistent record.
        """
        kind, schema = _header(value)
        assert value is not None
        writer = self._writers.get((kind, schema))
        if writer is None:
            raise UnknownSchema(f"{kind.name} record with unknown schema fingerprint {schema:016x}")
        try:
            return from_body(MESSAGES[kind], _read_body(value, writer, _own(kind).parsed))
        except FormatError:
            raise
        except _BAD_BODY as error:
            raise FormatError(f"{kind.name}: body cannot be read: {type(error).__name__} {error}") from error


def _read_body(value: bytes, writer: Any, reader: Any) -> Any:
    buffer = io.BytesIO(value)
    buffer.seek(HEADER.size)
    body = fastavro.schemaless_reader(buffer, writer, reader, return_record_name=False)
    if buffer.tell() != len(value):
        raise FormatError(f"{len(value) - buffer.tell()} bytes after the end of the body")
    return body
