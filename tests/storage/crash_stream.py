"""A stream of operations that is a function of its position, and what a store must hold after so many of them."""

from dataclasses import replace

import numpy as np

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.hashing import UInt64s, checksum, splitmix64
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import LanePosition, ReplicaState
from ekko.storage.store import Store

KEYS, DIM = 8_000, 4
OPERATIONS_AN_EPOCH = 12
STATES_KEPT = 6
MEMORY_BYTES = 9 << 19
"""So little that journal values are let go all the time, and as much as the rows and entries of the stream may take."""
MODEL = ModelDeclaration("crash", 1, 1, (TableDeclaration("rows", DIM),), incarnation=1)


def epoch_of(position: int) -> int:
    return position // OPERATIONS_AN_EPOCH


def key_names() -> UInt64s:
    return splitmix64(np.arange(KEYS, dtype=np.uint64))


def operation(position: int) -> tuple[str, int, np.ndarray, Int32s]:  # type: ignore[type-arg]
    """Kind, effective epoch (or first epoch of a void, or bound), key numbers and deltas."""
    random = np.random.default_rng(position)
    epoch, dice = epoch_of(position), random.random()
    nothing = np.empty(0, np.int64), np.empty((0, DIM), np.int32)
    if position % OPERATIONS_AN_EPOCH == OPERATIONS_AN_EPOCH - 1 and dice < 0.3:
        return "undo", max(bound_at(epoch), epoch - int(random.integers(0, 3))), *nothing
    if position % OPERATIONS_AN_EPOCH == 0:
        return "bound", bound_at(epoch), *nothing
    numbers = random.permutation(KEYS)[: int(random.integers(200, 4_000))]
    deltas = random.integers(-(1 << 31), 1 << 31, (len(numbers), DIM), dtype=np.int64).astype(np.int32)
    return "apply", max(0, epoch - int(random.integers(0, 4))), numbers, deltas


def bound_at(epoch: int) -> int:
    return max(0, epoch - STATES_KEPT)


def position_of(state: ReplicaState) -> int:
    return state.shards[0].express.offset


def state_at(state: ReplicaState, position: int) -> ReplicaState:
    return replace(state, shards={0: replace(state.shards[0], express=LanePosition(position, position))})


def run(store: Store, position: int) -> None:
    """Do one operation to a store."""
    kind, epoch, numbers, deltas = operation(position)
    if kind == "undo":
        store.undo(EpochRange(epoch, epoch_of(position)))
    elif kind == "bound":
        store.raise_bound(epoch)
    else:
        store.apply("rows", epoch_of(position), epoch, key_names()[numbers], deltas)


class Reference:
    """Sums of deltas by epoch, as plain arrays."""

    def __init__(self) -> None:
        self.position = 0
        self.sums: dict[int, Int32s] = {}
        self.void: set[int] = set()

    def advance(self, position: int) -> None:
        while self.position < position:
            kind, epoch, numbers, deltas = operation(self.position)
            if kind == "undo":
                self.void.update(range(epoch, epoch_of(self.position) + 1))
            elif kind == "apply" and epoch not in self.void:
                sums = self.sums.setdefault(epoch, np.zeros((KEYS, DIM), np.int32))
                sums[numbers] += deltas
            self.position += 1
            if self.position % OPERATIONS_AN_EPOCH == 0:
                self._settle(bound_at(epoch_of(self.position - 1)))  # the next operation raises it further
        self.sums = {epoch: sums for epoch, sums in self.sums.items() if epoch not in self.void}

    def _settle(self, bound: int) -> None:
        """No void reaches below the bound: what is there is one sum, so that a long run does not grow."""
        old = [epoch for epoch in self.sums if -1 < epoch < bound]
        base = self.sums.setdefault(-1, np.zeros((KEYS, DIM), np.int32))
        for epoch in old:
            base += self.sums.pop(epoch) * (epoch not in self.void)

    def checksum(self, as_of: int | None = None) -> int:
        rows = np.zeros((KEYS, DIM), np.int32)
        for epoch, sums in self.sums.items():
            if as_of is None or epoch < as_of:
                rows += sums
        return checksum("rows", key_names(), rows)
