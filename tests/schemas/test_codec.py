"""Records: golden bytes, round trips, evolution, rubbish."""

import contextlib
import io
import json
from dataclasses import fields, replace
from pathlib import Path

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekko import schemas
from ekko.schemas.bodies import to_body
from ekko.schemas.codec import HEADER, MESSAGES, Codec, Kind, UnknownSchema, encode, kind_of, own_schemas
from ekko.schemas.declarations import SchemaDeclaration
from ekko.schemas.errors import FormatError, FormatTooNew
from tests.schemas.examples import EXAMPLES, same

GOLDEN = Path(__file__).parent / "golden"


def test_every_kind_has_an_example() -> None:
    assert set(EXAMPLES) == set(Kind) == set(MESSAGES)


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_golden_files_are_read_and_written_byte_for_byte(kind: Kind) -> None:
    """A golden file that no longer matches means a changed format: never regenerate it, raise the version.

    Where a field was added, `<kind>.2.bin` tells what is written since, and the schema before is `<kind>.1.avsc`.
    """
    name = kind.name.lower()
    golden = max(GOLDEN.glob(f"{name}.[0-9].bin"), default=GOLDEN / f"{name}.bin").read_bytes()
    assert encode(EXAMPLES[kind]) == golden
    assert same(Codec().decode(golden), EXAMPLES[kind])
    assert kind_of(golden) is kind


def _fields(kind: Kind, number: int) -> set[str]:
    schema = Path(schemas.__file__).parent / "avro" / f"{kind.name.lower()}.{number}.avsc"
    return {field["name"] for field in json.loads(schema.read_text())["fields"]}


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.bin")), ids=lambda path: path.stem)
def test_golden_files_of_earlier_schemas_are_read_with_the_added_fields_at_their_defaults(golden: Path) -> None:
    name, _, number = golden.stem.partition(".")
    kind = Kind[name.upper()]
    if (GOLDEN / f"{name}.{int(number or 1) + 1}.bin").exists():
        written = _fields(kind, int(number or 1))
        defaults = {field.name: field.default for field in fields(EXAMPLES[kind]) if field.name not in written}
        example = replace(EXAMPLES[kind], **defaults)
        if kind is Kind.MODEL:  # so have its tables
            tables = tuple(replace(table, send_every_s=0.0, admission=1) for table in example.tables)
            example = replace(example, tables=tables)
        if kind is Kind.LANE_BLOCK and not number:  # holds a barrier, and has gained what that has
            example = replace(example, barrier=replace(example.barrier, pinned=None, serves_pinned=False))
        assert same(Codec().decode(golden.read_bytes()), example)
    else:
        assert same(Codec().decode(golden.read_bytes()), EXAMPLES[kind])


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_a_truncated_or_lengthened_record_is_a_format_error(kind: Kind) -> None:
    whole = encode(EXAMPLES[kind])
    for end in range(len(whole)):
        with pytest.raises(FormatError):
            Codec().decode(whole[:end])
    with pytest.raises(FormatError, match="after the end"):
        Codec().decode(whole + b"\x00")


@given(rubbish=st.binary(max_size=200), kind=st.sampled_from(list(Kind)))
def test_rubbish_is_a_format_error_and_nothing_else(rubbish: bytes, kind: Kind) -> None:
    with pytest.raises(FormatError):
        Codec().decode(b"XX" + rubbish)
    with contextlib.suppress(FormatError):  # some rubbish is a valid body by chance
        Codec().decode(encode(EXAMPLES[kind])[: HEADER.size] + rubbish)


def test_a_tombstone_is_a_format_error() -> None:
    with pytest.raises(FormatError, match="tombstone"):
        Codec().decode(None)


def test_a_higher_version_is_too_new_not_bad() -> None:
    record = bytearray(encode(EXAMPLES[Kind.BARRIER]))
    record[3] = 2
    with pytest.raises(FormatTooNew, match="version 2"):
        Codec().decode(bytes(record))


@pytest.mark.parametrize(("kind", "version"), [(200, 130), (2, 64), (64, 2), (0, 1), (2, 0)])
def test_chance_bytes_behind_the_magic_are_bad_input_not_a_newer_format(kind: int, version: int) -> None:
    with pytest.raises(FormatError, match="1 to 63"):
        kind_of(HEADER.pack(b"EK", kind, version, 7))


def test_a_known_version_with_an_unknown_fingerprint_is_unknown() -> None:
    record = bytearray(encode(EXAMPLES[Kind.BARRIER]))
    record[4] ^= 0xFF
    with pytest.raises(UnknownSchema, match="BARRIER"):
        Codec().decode(bytes(record))


def _with_added_field() -> tuple[SchemaDeclaration, bytes]:
    """A signal as a newer version would write it: one more field with a default."""
    own = next(schema for schema in own_schemas() if schema.kind == Kind.SIGNAL)
    newer = json.loads(own.schema)
    newer["fields"].append({"name": "unit", "type": ["null", "string"], "default": None})
    parsed = fastavro.parse_schema(newer)
    canonical = fastavro.schema.to_parsing_canonical_form(parsed)
    fingerprint = int(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"), 16)
    body = io.BytesIO()
    plain = {name: getattr(EXAMPLES[Kind.SIGNAL], name) for name in type(EXAMPLES[Kind.SIGNAL]).__slots__}
    fastavro.schemaless_writer(body, parsed, {**plain, "unit": "nats"})
    header = HEADER.pack(b"EK", Kind.SIGNAL, 1, fingerprint)
    return SchemaDeclaration(Kind.SIGNAL, fingerprint, json.dumps(newer)), header + body.getvalue()


def test_an_added_optional_field_is_read_once_its_schema_is_learnt() -> None:
    declaration, record = _with_added_field()
    codec = Codec()
    with pytest.raises(UnknownSchema):
        codec.decode(record)
    codec.learn(declaration)
    assert codec.decode(record) == EXAMPLES[Kind.SIGNAL]


def test_a_schema_that_is_not_what_its_fingerprint_says_is_refused() -> None:
    declaration, _ = _with_added_field()
    with pytest.raises(FormatError, match="has fingerprint"):
        Codec().learn(SchemaDeclaration(declaration.kind, declaration.fingerprint ^ 1, declaration.schema))
    with pytest.raises(FormatError):
        Codec().learn(SchemaDeclaration(declaration.kind, declaration.fingerprint, "{not json"))


@pytest.mark.parametrize(
    "text",
    [
        *("5", "null", "[]", "{}", '{"type": "record", "name": "x"}', '{"type": "record", "name": 5, "fields": []}'),
        *('{"type": "enum", "name": "x"}', '{"type": "map"}', '{"type": {"type": "record"}}', "[" * 100_000),
    ],
    ids=lambda text: text[:40],
)
def test_no_schema_in_the_catalogue_can_stop_those_who_read_it(text: str) -> None:
    with pytest.raises(FormatError):
        Codec().learn(SchemaDeclaration(Kind.SIGNAL, 1, text))


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('"long"', b"\x02"),
        ('{"type": "record", "name": "ekko.Signal", "fields": [{"name": "model", "type": "string"}]}', b"\x02a"),
        ('{"type": "record", "name": "ekko.Signal", "fields": [{"name": "model", "type": "bytes"}]}', b"\x02a"),
    ],
    ids=["another type", "fields without a default are missing", "a field of another type"],
)
def test_a_record_of_a_learnt_schema_that_cannot_be_ours_is_a_format_error(text: str, body: bytes) -> None:
    canonical = fastavro.schema.to_parsing_canonical_form(fastavro.parse_schema(json.loads(text)))
    fingerprint = int(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"), 16)
    codec = Codec()
    codec.learn(SchemaDeclaration(Kind.SIGNAL, fingerprint, text))
    with pytest.raises(FormatError, match="cannot be read"):
        codec.decode(HEADER.pack(b"EK", Kind.SIGNAL, 1, fingerprint) + body)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("keys", b"1234567", "no whole uint64"),
        ("keys", bytes(8), "1 keys but 3 delta rows"),
        ("deltas", b"123", "no whole rows"),
        ("width", 3, "3 byte"),
        ("dim", 0, "dim 0"),
        ("dim", 5, "no whole rows"),
        ("created", b"12345", "created flags"),
        ("purpose", "mischief", "mischief"),
    ],
)
def test_columns_that_contradict_each_other_are_refused(field: str, value: object, reason: str) -> None:
    own = next(schema for schema in own_schemas() if schema.kind == Kind.DELTA_BLOCK)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, json.loads(own.schema), {**to_body(EXAMPLES[Kind.DELTA_BLOCK]), field: value})
    header = HEADER.pack(b"EK", Kind.DELTA_BLOCK, 1, own.fingerprint)
    with pytest.raises(FormatError, match=reason):
        Codec().decode(header + body.getvalue())


def test_a_block_without_rows_keeps_its_dim() -> None:
    empty = replace(EXAMPLES[Kind.LANE_BLOCK], keys=np.empty(0, np.uint64), deltas=np.empty((0, 7), np.int32))
    assert Codec().decode(encode(empty)).deltas.shape == (0, 7)
