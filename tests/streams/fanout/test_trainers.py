"""From whom blocks came, and who is blocked, is told to the monitor: once a second, and only while all is read."""

import numpy as np

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Barrier
from ekko.schemas.signals import ENDED, PUBLISHED, TRAINERS_HEARD, Signal
from ekko.streams.log import Output, Partition
from tests.simulation.truth import committed, decoded
from tests.streams.fanout.test_pacing import DIM, MODEL, Link


def publish(link: Link, trainer: str, published_us: int, purpose: Purpose = Purpose.TRAIN) -> None:
    keys, deltas = np.arange(3, dtype=np.uint64), np.ones((3, DIM), np.int32)
    block = DeltaBlock(
        link.incarnation, "t", 0, keys, deltas, trainer=trainer, published_us=published_us, purpose=purpose
    )
    write(link, encode(block))


def write(link: Link, value: bytes) -> None:
    link._writer.transact([Output(Partition(topics.deltas(MODEL), 0), value)])


def told(link: Link, metric: str) -> list[tuple[str, int, int]]:
    """Source, count and event time of the signals of a metric."""
    messages = [decoded(record.value) for record in committed(link.broker, Partition(topics.signals(MODEL), 0))]
    found = [each for each in messages if isinstance(each, Signal) and each.metric == metric]
    return [(each.source, each.count, each.event_us) for each in found]


def test_trainers_are_told_and_operations_are_not() -> None:
    link = Link(20_000.0)
    link.step(0.5)
    publish(link, "a", 11)
    publish(link, "a", 17)
    publish(link, "b", 13)
    publish(link, "expire/t/1-2", 19, Purpose.EXPIRE)
    link.step(1.5)
    assert told(link, PUBLISHED) == [("trainer/a", 2, 17), ("trainer/b", 1, 13)]
    assert sum(count for _, count, _ in told(link, TRAINERS_HEARD)) == 2
    link.step(5.0)
    assert len(told(link, PUBLISHED)) == 2
    assert len(told(link, TRAINERS_HEARD)) >= 6, "it reads, and nobody publishes"


def test_whom_a_barrier_denies_is_told_and_heard_no_more() -> None:
    link = Link(20_000.0)
    write(link, encode(Barrier(link.incarnation, 1, 0, link.catalogue_end, denied=("a",), written_us=23)))
    publish(link, "a", 29)
    publish(link, "b", 31)
    link.step(2.5)
    assert told(link, ENDED) == [("trainer/a", 1, 23)]
    assert told(link, PUBLISHED) == [("trainer/b", 1, 31)]


def test_while_a_shard_stands_still_nothing_is_said_about_who_is_heard() -> None:
    link = Link(20_000.0)
    link.step(2.0)
    before = len(told(link, TRAINERS_HEARD))
    assert before
    write(link, encode(Barrier(link.incarnation, 7, 0, link.catalogue_end)))  # not the next one: the shard halts
    link.step(0.2)
    before = len(told(link, TRAINERS_HEARD))
    link.step(5.0)
    assert len(told(link, TRAINERS_HEARD)) == before
