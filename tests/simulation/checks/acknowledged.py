"""Nothing acknowledged is lost, and with positions nothing is published twice."""

from itertools import groupby

from ekko.schemas.blocks import Purpose
from ekko.streams.publisher.position import position_shard
from tests.simulation.trainer import Trainer
from tests.simulation.truth import Truth


def check_acknowledged(truth: Truth, trainer: Trainer) -> None:
    """The log holds at least the rows whose delivery the trainer was told of."""
    mine = [block for _, block in truth.blocks if block.trainer == trainer.identity]
    blocks = [block for block in mine if block.purpose is Purpose.TRAIN]  # others are an operator's
    rows = sum(len(block.keys) for block in blocks)
    assert rows >= trainer.acknowledged, f"{trainer.name}: {trainer.acknowledged} rows acknowledged, {rows} in the log"
    if trainer.exactly_once:
        shard = position_shard(trainer.identity, truth.model.shards)
        positions = [int(block.trainer_position) for block in blocks if block.trainer_position and block.shard == shard]
        # A batch may make several blocks of the same shard.
        positions = [position for position, _ in groupby(positions)]
        expected = list(range(1, len(positions) + 1))
        assert positions == expected, f"{trainer.name}: the log holds the batches {positions}"
