"""A store in dicts and Python integers: every contribution is kept, a row is their sum."""

from collections import defaultdict
from collections.abc import Iterable

from ekko.schemas.epochs import EpochRange

MODULUS = 1 << 32
Contribution = tuple[str, int, int, tuple[int, ...]]  # table, effective epoch, key, delta


class TruthStore:
    """What a store must hold, by definition: the sum of all deltas whose epochs are not void."""

    def __init__(self) -> None:
        self.contributions: list[Contribution] = []
        self.voids: set[EpochRange] = set()
        self.arrivals: dict[tuple[str, int], int] = {}

    def copy(self) -> "TruthStore":
        other = TruthStore()
        other.contributions, other.voids = list(self.contributions), set(self.voids)
        other.arrivals = dict(self.arrivals)
        return other

    def apply(
        self, table: str, effective: int, keys: Iterable[int], deltas: Iterable[tuple[int, ...]], arrival: int
    ) -> None:
        if not self.is_void(effective):
            added = [(table, effective, key, delta) for key, delta in zip(keys, deltas, strict=True)]
            self.contributions += added
            self.arrivals |= {(table, key): max(arrival, self.arrivals.get((table, key), 0)) for _, _, key, _ in added}

    def is_void(self, epoch: int) -> bool:
        return any(epoch in void for void in self.voids)

    def undo(self, void: EpochRange) -> None:
        self.voids.add(void)
        self.contributions = [entry for entry in self.contributions if entry[1] not in void]

    def rows(self, table: str, as_of: int | None = None) -> dict[int, tuple[int, ...]]:
        sums: dict[int, list[int]] = defaultdict(list)
        for name, effective, key, delta in self.contributions:
            if name == table and (as_of is None or effective < as_of):
                before = sums[key] or [0] * len(delta)
                sums[key] = [signed(one + other) for one, other in zip(before, delta, strict=True)]
        return {key: tuple(row) for key, row in sums.items() if any(row)}


def signed(value: int) -> int:
    """The value modulo 2**32 as an int32."""
    return (value + MODULUS // 2) % MODULUS - MODULUS // 2
