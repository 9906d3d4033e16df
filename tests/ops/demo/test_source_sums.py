"""The independent recomputation, against sums done by hand."""

import numpy as np

from ekko.ops.demo.source_sums import Published, SourceSums
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Barrier, EpochRange
from ekko.streams.log import Partition, Record

INCARNATION = 3


def block(value: int, *keys: int, **fields) -> DeltaBlock:
    deltas = np.full((len(keys), 2), value, np.int32)
    fields = {"incarnation": INCARNATION, "trainer": "a", **fields}
    return DeltaBlock(table="t", shard=0, keys=np.uint64(keys), deltas=deltas, **fields)


def barrier(epoch: int, generation: int = 0, **fields) -> Barrier:
    return Barrier(INCARNATION, epoch, generation, catalogue_end=0, **fields)


def sums_of(*messages, shard: int = 0, sums: SourceSums | None = None) -> SourceSums:
    sums = sums or SourceSums(INCARNATION)
    partition = Partition("m.deltas", shard)
    sums.feed(
        Record(partition, offset, None, message if isinstance(message, bytes) else encode(message))
        for offset, message in enumerate(messages)
    )
    return sums


def rows_of(sums: SourceSums, before_epoch: int | None = None) -> dict[int, int]:
    keys, rows = sums.rows("t", before_epoch)
    assert (rows == rows[:, :1]).all()
    return dict(zip(keys.tolist(), rows[:, 0].tolist(), strict=True))


def test_deltas_add_up_over_blocks_and_shards():
    sums = sums_of(block(5, 1, 2), block(-2, 2, 3))
    sums_of(block(7, 9), shard=1, sums=sums)
    assert rows_of(sums) == {1: 5, 2: 3, 3: -2, 9: 7}


def test_sums_wrap_around_and_zero_rows_are_absent():
    assert rows_of(sums_of(block(2**31 - 1, 1), block(1, 1), block(4, 2), block(-4, 2))) == {1: -(2**31)}


def test_rows_as_of_a_state_leave_later_epochs_out():
    sums = sums_of(block(1, 1), barrier(1), block(2, 1), barrier(2), block(4, 1))
    assert [rows_of(sums, state) for state in (1, 2, None)] == [{1: 1}, {1: 3}, {1: 7}]


def test_void_epochs_and_what_was_learnt_from_them_do_not_count():
    void = EpochRange(1, 1)
    sums = sums_of(
        block(1, 1), barrier(1), block(2, 1), barrier(2, 1, voids=(void,)), block(4, 1), block(8, 1, generation=1)
    )
    assert rows_of(sums) == {1: 9}
    assert sums.skipped == {"old_generation": 1}


def test_retractions_belong_to_the_epoch_they_take_back():
    retraction = block(-1, 1, purpose=Purpose.RETRACT, effective=0, operation="retract-1/0")
    sums = sums_of(block(1, 1), barrier(1), block(2, 1), retraction)
    assert rows_of(sums, 1) == {}
    assert rows_of(sums) == {1: 2}


def test_denied_trainers_other_incarnations_and_garbage_are_left_out():
    other = block(4, 1, incarnation=INCARNATION + 1)
    sums = sums_of(block(1, 1), barrier(1, denied=("a",)), block(2, 1), block(8, 1, trainer="b"), other, b"garbage")
    assert rows_of(sums) == {1: 9}
    assert sums.skipped == {"denied": 1, "other_incarnation": 1, "bad_format": 1}


def test_blocks_without_rows_change_nothing_and_marks_are_not_counted():
    position = block(0, trainer_position=b"7")
    sums = sums_of(block(1, 5), position, block(0))
    assert rows_of(sums) == {5: 1}
    assert sums.published == {"a": Published(1, 2, 2)}


def test_published_counts_everything_a_trainer_sent():
    sums = sums_of(block(-5, 1, 2), block(3, 4), block(1, 4, trainer="b"))
    assert sums.published == {"a": Published(3, 2, (-20 + 6) % 2**64), "b": Published(1, 1, 2)}
