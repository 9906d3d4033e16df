"""What operations publish, such as an expiry's negatives, is no gradient: it is not urgent, and raises no alarm."""

import numpy as np
import pytest

from ekko.schemas import topics
from ekko.schemas.blocks import DeltaBlock, Lane, Purpose
from ekko.schemas.codec import encode
from ekko.schemas.signals import Signal
from ekko.streams.log import Output, Partition
from tests.simulation.truth import committed, decoded
from tests.streams.fanout.test_pacing import DIM, MODEL, Link


def operate(link: Link, purpose: Purpose, keys: list[int], value: int) -> None:
    deltas = np.full((len(keys), DIM), value, np.int32)
    block = DeltaBlock(link.incarnation, "t", 0, np.array(keys, np.uint64), deltas, purpose=purpose)
    link._writer.transact([Output(Partition(topics.deltas(MODEL), 0), encode(block))])


@pytest.mark.parametrize("purpose", [purpose for purpose in Purpose if purpose is not Purpose.TRAIN])
def test_operations_travel_in_bulk_and_are_no_gradients(purpose: Purpose) -> None:
    link = Link(20_000.0)
    for _ in range(5):
        link.publish(list(range(100, 200)), 5)
        link.step(0.1)
    expired = list(range(50))
    operate(link, purpose, expired, 1_000_000)
    link.publish(list(range(100, 200)), 5)
    link.publish([77], 900)
    link.step(2.0)
    for key in expired:
        assert {lane for lane, _ in link.blocks(key)} == {Lane.BULK}
        assert sum(int(block.deltas[block.keys == key][0, 0]) for _, block in link.blocks(key)) == 1_000_000
    assert {lane for lane, _ in link.blocks(77)} == {Lane.EXPRESS}, "a trainer's update is as urgent as ever"
    link.step(5.0)
    assert reported(link) == (DIM * (6 * 100 * 5 + 900), 601)


def reported(link: Link) -> tuple[float, int]:
    """Sum and count of gradient norms that the monitor was told."""
    messages = [decoded(record.value) for record in committed(link.broker, Partition(topics.signals(MODEL), 0))]
    norms = [each for each in messages if isinstance(each, Signal) and each.metric == "gradient_norm"]
    return sum(each.value for each in norms), sum(each.count for each in norms)
