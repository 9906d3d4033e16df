"""What becomes of every kind of record, and that it is the same whenever it is read."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.schemas.errors import FormatTooNew, GapError
from ekko.schemas.hashing import shard_of
from ekko.schemas.signals import AuditEntry
from ekko.streams.fanout.admission import Admission, Admitted, OpenEpoch, Reason, Refused, Undecided
from ekko.streams.fanout.held import HeldRecords
from ekko.streams.fanout.intake import Intake
from ekko.streams.log import Partition, Record

SHARDS, SHARD, INCARNATION = 4, 2, 10
ALL_KEYS = np.arange(100, dtype=np.uint64)
KEYS = ALL_KEYS[shard_of(ALL_KEYS, SHARDS) == SHARD][:3]
BLOCK = DeltaBlock(INCARNATION, "t", SHARD, KEYS, np.ones((3, 2), np.int32), trainer="anna", generation=3, catalogue=11)
EPOCH = OpenEpoch(7, 3, 11, frozenset({"mallory"}))


class Catalogue:
    """A catalogue of one model, to which a table is added at offset 20."""

    def __init__(self, end: int = 11, written_ms: int = 5_000) -> None:
        self.end, self.codec, self.written_ms = end, Codec(), written_ms

    def decode(self, value: bytes | None) -> object:
        return self.codec.decode(value)

    def model_as_of(self, name: str, offset: int) -> ModelDeclaration | None:
        assert offset <= self.end
        tables = (TableDeclaration("t", 2),) + ((TableDeclaration("late", 2),) if offset > 20 else ())
        return ModelDeclaration(name, SHARDS, tables=tables, incarnation=INCARNATION, max_rows_a_block=3)

    def existed_at(self, offset: int, timestamp_ms: int) -> bool:
        return offset <= self.end and self.written_ms < timestamp_ms


def record(message: object, offset: int = 0, timestamp_ms: int = 0) -> Record:
    value = message if isinstance(message, bytes | None) else encode(message)
    return Record(Partition("m.deltas", SHARD), offset, None, value, timestamp_ms)


def judge(message: object, catalogue: Catalogue | None = None, timestamp_ms: int = 0) -> object:
    model = ModelDeclaration("m", SHARDS, incarnation=INCARNATION)
    return Admission(model, SHARD, catalogue or Catalogue()).judge(record(message, 0, timestamp_ms), EPOCH)


def test_a_good_block_counts_in_the_epoch_of_its_arrival() -> None:
    verdict = judge(BLOCK)
    assert isinstance(verdict, Admitted)
    assert (verdict.effective, verdict.table) == (7, TableDeclaration("t", 2))


def test_a_retraction_counts_in_the_epoch_it_takes_back_whatever_its_generation() -> None:
    verdict = judge(replace(BLOCK, purpose=Purpose.RETRACT, effective=2, generation=0))
    assert isinstance(verdict, Admitted)
    assert verdict.effective == 2


def test_a_block_without_rows_that_only_carries_a_position_is_taken() -> None:
    empty = replace(BLOCK, keys=KEYS[:0], deltas=np.empty((0, 2), np.int32), trainer_position=b"17")
    assert isinstance(judge(empty), Admitted)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (None, Reason.BAD_FORMAT),
        (b"\x01\x02\x03\x04", Reason.BAD_FORMAT),
        (encode(BLOCK)[:-5], Reason.BAD_FORMAT),
        (encode(BLOCK) + b"x", Reason.BAD_FORMAT),
        (AuditEntry("m", "a", "b", "c", 0), Reason.WRONG_KIND),
        (replace(BLOCK, incarnation=9), Reason.WRONG_INCARNATION),
        (Barrier(9, 8, 3, 11), Reason.WRONG_INCARNATION),
        (replace(BLOCK, shard=1), Reason.WRONG_SHARD),
        (replace(BLOCK, trainer="mallory"), Reason.DENIED),
        (replace(BLOCK, generation=2), Reason.OLD_GENERATION),
        (replace(BLOCK, generation=4), Reason.FUTURE_GENERATION),
        (replace(BLOCK, effective=7), Reason.BAD_EFFECTIVE),
        (replace(BLOCK, purpose=Purpose.RETRACT, effective=8), Reason.BAD_EFFECTIVE),
        (replace(BLOCK, purpose=Purpose.RETRACT, effective=-1), Reason.BAD_EFFECTIVE),
        (replace(BLOCK, table="u"), Reason.UNKNOWN_TABLE),
        (replace(BLOCK, deltas=np.ones((3, 3), np.int32)), Reason.WRONG_DIM),
        (replace(BLOCK, keys=np.repeat(KEYS, 2), deltas=np.ones((6, 2), np.int32)), Reason.TOO_MANY_ROWS),
        (replace(BLOCK, keys=ALL_KEYS[:3]), Reason.FOREIGN_KEYS),
    ],
)
def test_bad_records_are_refused_by_name(message: object, reason: Reason) -> None:
    verdict = judge(message)
    assert isinstance(verdict, Refused)
    assert verdict.reason is reason
    assert verdict.detail


def test_a_retraction_of_a_denied_trainers_learning_is_welcome() -> None:
    assert isinstance(judge(replace(BLOCK, trainer="mallory", purpose=Purpose.RETRACT, effective=3)), Admitted)


def test_a_newer_format_is_not_bad_input() -> None:
    newer = bytearray(encode(BLOCK))
    newer[3] += 1
    with pytest.raises(FormatTooNew):
        judge(bytes(newer))


def test_a_table_added_since_the_last_barrier_is_taken_at_once_where_the_log_proves_it_was_there() -> None:
    late = replace(BLOCK, table="late", catalogue=21)
    assert judge(late, Catalogue(end=15), timestamp_ms=6_000) == Undecided(21, "anna", "late"), "not read so far"
    assert isinstance(judge(late, Catalogue(end=21, written_ms=5_000), timestamp_ms=6_000), Admitted)
    verdict = judge(late, Catalogue(end=30, written_ms=7_000), timestamp_ms=6_000)
    assert isinstance(verdict, Undecided), "a reader that comes late must not know more than one that was in time"


def fed(catalogue: Catalogue, messages: list[object], held: HeldRecords | None = None) -> Intake:
    intake = Intake(Admission(ModelDeclaration("m", SHARDS, incarnation=INCARNATION), SHARD, catalogue), held)
    for offset, message in enumerate(messages):
        intake.read(record(message, offset))
        intake.reconsider(catalogue.end)
    return intake


def test_two_barriers_decide_about_an_offset_that_was_not_there() -> None:
    liar = replace(BLOCK, generation=0, catalogue=500)
    barriers = [Barrier(INCARNATION, epoch, 0, 11) for epoch in (1, 2, 3)]
    waiting = fed(Catalogue(), [liar, barriers[0]])
    assert (waiting.held, waiting.oldest_held_arrival, waiting.refusals) == (1, 0, [])
    for end in (11, 900):  # a reader in time, and one that comes when the catalogue has grown beyond what was named
        decided = fed(Catalogue(end=end, written_ms=9_000), [liar, *barriers[:2]])
        assert decided.held == 0
        assert [refusal.why.reason for refusal in decided.refusals] == [Reason.FUTURE_CATALOGUE]


def test_records_that_wait_are_kept_within_a_bound_and_read_again_beyond_it() -> None:
    liars = [replace(BLOCK, generation=0, catalogue=500 + number) for number in range(20)]
    late = replace(BLOCK, table="late", generation=0, catalogue=21)
    messages = [*liars[:10], late, *liars[10:]]
    log = [record(message, offset) for offset, message in enumerate(messages)]
    reads: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> Iterator[Record]:
        reads.append((start, end))
        return iter(log[start:end])

    held = HeldRecords(3 * len(encode(BLOCK)), fetch)
    catalogue = Catalogue(end=21, written_ms=9_000)
    intake = fed(catalogue, [*messages, Barrier(INCARNATION, 1, 0, 21)], held)
    assert held.nbytes <= 3 * len(encode(BLOCK))
    for _ in range(20):  # some at a time
        intake.reconsider(catalogue.end)
    assert [group for group, _ in intake.arrivals] == [(0, 0)]
    assert intake.held == 20
    intake.read(record(Barrier(INCARNATION, 2, 0, 21), 22))
    for _ in range(20):
        intake.reconsider(catalogue.end)
        assert held.nbytes <= 3 * len(encode(BLOCK))
    assert intake.held == 0
    assert sorted(refusal.record.offset for refusal in intake.refusals) == [at for at in range(21) if at != 10]
    assert reads, "most were not kept"


def test_a_barrier_while_records_that_wait_are_gone_through_begins_anew() -> None:
    liars = [replace(BLOCK, generation=0, catalogue=500) for _ in range(6)]
    log = [record(message, offset) for offset, message in enumerate(liars)]
    held = HeldRecords(2 * len(encode(liars[0])), lambda start, end: iter(log[start:end]))
    catalogue = Catalogue(end=21, written_ms=9_000)
    intake = fed(catalogue, [*liars], held)
    intake.read(record(Barrier(INCARNATION, 1, 0, 21), 6))
    intake.reconsider(catalogue.end)
    intake.reconsider(catalogue.end)  # four of six are looked at, and wait again behind the others
    intake.read(record(Barrier(INCARNATION, 2, 0, 21), 7))
    for _ in range(8):
        intake.reconsider(catalogue.end)
    assert intake.held == 0
    assert sorted(refusal.record.offset for refusal in intake.refusals) == list(range(6))


def test_the_next_barrier_that_has_seen_the_offset_lets_the_block_in_where_it_arrived() -> None:
    late = replace(BLOCK, table="late", generation=0, catalogue=21)
    intake = fed(Catalogue(end=21, written_ms=9_000), [late, Barrier(INCARNATION, 1, 0, 21)])
    assert [group for group, _ in intake.arrivals] == [(0, 0)]


def test_an_unknown_writer_schema_waits_for_the_catalogue_and_is_refused_when_it_is_not_there() -> None:
    foreign = bytearray(encode(replace(BLOCK, generation=0)))
    foreign[4] ^= 0xFF
    barriers = [Barrier(INCARNATION, epoch, 0, 11) for epoch in (1, 2)]
    assert fed(Catalogue(), [bytes(foreign), barriers[0]]).held == 1
    refused = fed(Catalogue(), [bytes(foreign), *barriers])
    assert [refusal.why.reason for refusal in refused.refusals] == [Reason.UNKNOWN_SCHEMA]


def test_a_barrier_must_open_exactly_the_next_epoch() -> None:
    for epochs in ([2], [1, 3], [1, 1]):
        with pytest.raises(GapError, match="expected"):
            fed(Catalogue(), [Barrier(INCARNATION, epoch, 0, 11) for epoch in epochs])


def test_deltas_of_void_epochs_are_dropped_not_refused_also_when_the_void_comes_later() -> None:
    void = (EpochRange(0, 0),)
    train = replace(BLOCK, generation=0)
    intake = fed(Catalogue(), [train, Barrier(INCARNATION, 1, 1, 11, void)])
    assert intake.arrivals == {}
    retraction = replace(BLOCK, purpose=Purpose.RETRACT, effective=0, generation=0)
    intake = fed(Catalogue(), [Barrier(INCARNATION, 1, 1, 11, void), retraction])
    assert (intake.arrivals, intake.refusals, intake.dropped_rows) == ({}, [], 3)
