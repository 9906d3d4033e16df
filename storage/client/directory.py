"""Which store a client asks: the stores it was given, those the region's members name, and which of them failed lately.

Pure: time is an argument. Every change replaces what was there, so readers in other threads see the old or the new.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ekko.schemas.errors import NotReady
from ekko.schemas.hashing import UInt64s, shard_of
from ekko.schemas.replicas import Member

COOL_OFF_S = 1.0
"""A store that failed is asked last for this long: longer than a reconnect, shorter than a restart."""

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class _Place:
    address: str
    shards: frozenset[int] | None  # None: not told yet, so it may hold any

    def holds(self, shards: frozenset[int]) -> bool:
        return self.shards is None or shards <= self.shards


class Directory:
    """The stores of one model; the first given is preferred as long as it works."""

    def __init__(self, model: str, stores: Sequence[str]) -> None:
        self._model = model
        self._seeds = tuple(store.removeprefix("http://").rstrip("/") for store in stores)
        self._places = tuple(_Place(address, None) for address in self._seeds)
        self._cooling: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._places)

    def learn(self, members: Iterable[Member]) -> None:
        """Take what the region's members say of themselves; stores that were given stay known whatever happens."""
        owned = {
            member.address: frozenset(state.shards)
            for member in members
            if member.ready
            for state in member.models
            if state.model == self._model
        }
        seeds = [_Place(address, owned.get(address)) for address in self._seeds]
        found = [_Place(address, owned[address]) for address in sorted(owned) if address not in self._seeds]
        self._places = (*seeds, *found)

    def failed(self, address: str, now_s: float) -> None:
        """Ask this store last for a while."""
        self._cooling = {**self._cooling, address: now_s + COOL_OFF_S}

    def best(self, shards: frozenset[int], tried: Mapping[str, int], now_s: float) -> str:
        """The store to ask about `shards`: the one tried least, not cooling off, known to hold them, given first.

        Raises:
            NotReady: no ready store holds them all.
        """
        able = [place for place in self._places if place.holds(shards)]
        if not able:
            raise NotReady(
                f"no ready store holds shard(s) {sorted(shards)} of model {self._model}",
                hint="start one with `ekko store --shards ...`, or wait until it has caught up",
            )
        return min(able, key=lambda place: (*self._rank(place, tried, now_s), place.shards is None)).address

    def plan(
        self, keys: UInt64s, shards: int, tried: Mapping[str, int], now_s: float
    ) -> list[tuple[str, Indices | slice]]:
        """Who is asked for which of `keys`: one store for all of them if a good one holds every shard, else several.

        Raises:
            NotReady: a key's shard is held by no ready store.
        """
        everything = frozenset(range(shards))
        for place in self._places:
            if place.holds(everything) and self._rank(place, tried, now_s) == (0, False):
                return [(place.address, slice(None))]
        if not len(keys):  # only the version vector is wanted: any store tells one
            return [(self.best(frozenset(), tried, now_s), slice(None))]
        shard = shard_of(keys, shards)
        chosen = {number: self.best(frozenset({int(number)}), tried, now_s) for number in np.unique(shard)}
        return [
            (address, np.flatnonzero(np.isin(shard, [number for number, best in chosen.items() if best == address])))
            for address in sorted(set(chosen.values()))
        ]

    def _rank(self, place: _Place, tried: Mapping[str, int], now_s: float) -> tuple[int, bool]:
        return tried.get(place.address, 0), self._cooling.get(place.address, 0.0) > now_s
