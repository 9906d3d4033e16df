"""Nothing acknowledged is lost, and with positions nothing is published twice."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby

import numpy as np

from ekko.schemas.blocks import DeltaBlock, Purpose
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
        _check_each_batch_once(trainer, blocks)


def _check_each_batch_once(trainer: Trainer, blocks: Iterable[DeltaBlock]) -> None:
    """All rows under a position are of one batch, that which was tried last, and none is there twice.

    An earlier attempt drew other keys: its rows would be strangers in the last one, or there twice.
    """
    by_batch: dict[int, list[DeltaBlock]] = defaultdict(list)
    for block in blocks:
        if len(block.keys):
            assert block.trainer_position, f"{trainer.name}: rows without a position"
            by_batch[int(block.trainer_position)].append(block)
    for batch, parts in by_batch.items():
        table, keys = trainer.batches[batch]
        sent = np.concatenate([block.keys for block in parts])
        strangers = {block.table for block in parts} - {table} or np.setdiff1d(sent, keys).tolist()
        assert not strangers, f"{trainer.name}: batch {batch} is in the log with {strangers} of another attempt"
        assert len(np.unique(sent)) == len(sent), f"{trainer.name}: batch {batch} is in the log more than once"
