"""Exact sums of deltas by whatever they are grouped by: columnar, merged now and then to bound memory."""

from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.storage.engine.merging import sum_duplicates

Group = TypeVar("Group", bound=Hashable)
_MERGE_PARTS = 64


class Rows(NamedTuple):
    """Distinct keys uint64[N] and their sums int32[N, dim] modulo 2**32."""

    keys: UInt64s
    deltas: Int32s


class Sums(Generic[Group]):
    """Rows summed by group."""

    def __init__(self) -> None:
        self._parts: dict[Group, list[Rows]] = {}

    def add(self, group: Group, keys: UInt64s, deltas: Int32s) -> None:
        """Add deltas; keys may repeat from call to call."""
        parts = self._parts.setdefault(group, [])
        parts.append(Rows(keys, deltas))
        if len(parts) >= _MERGE_PARTS:
            self._parts[group] = [_merged(parts)]

    def items(self) -> Iterator[tuple[Group, Rows]]:
        """Groups with their rows that are not zero, keys rising."""
        for group, parts in self._parts.items():
            rows = total(parts)
            if len(rows.keys):
                yield group, rows


def total(parts: list[Rows]) -> Rows:
    """The sum of some rows (one part at least): those that are not zero, keys rising."""
    rows = _merged(parts)
    order = np.argsort(rows.keys)
    order = order[rows.deltas[order].any(axis=1)]
    return Rows(rows.keys[order], rows.deltas[order])


def _merged(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    keys, deltas = sum_duplicates(
        np.concatenate([part.keys for part in parts]), np.concatenate([part.deltas for part in parts])
    )
    return Rows(keys, deltas)
