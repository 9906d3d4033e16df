"""What retractions owe to rows that have expired (pure).

An expiry as of state S of a key took away what the key's deltas of epochs before S had summed up to. A retraction that
comes later and takes back one of them takes it away once more, so as much must be given back to the expiry: then the
key is as if it had expired without that delta. The law, for every key and every expiry of it that is in force:

    (the key's deltas that belong to epochs before S) + (all that bears the expiry's identity) = 0

It holds when an expiry is published, and only retractions break it: everything else belongs to the epoch of its
arrival, or is void together with the expiry. Corrections bear identity and effective epoch of the expiry, so they are
void, and reinstated, exactly when it is.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.epochs import EpochRange, is_void
from ekko.schemas.hashing import UInt64s
from ekko.streams.operations.accepted import Accepted
from ekko.streams.operations.expiry import ExpiryName, expiry_name
from ekko.streams.operations.parts import Part
from ekko.streams.operations.sums import Rows, Sums, total

_NOW = 1 << 62
"""Arrival of what is not published yet."""

_NO_KEYS = np.empty(0, np.uint64)


class Place(NamedTuple):
    """A shard of a table."""

    table: str
    shard: int


class Change(NamedTuple):
    """Whose deltas, where they arrived and where they belong."""

    place: Place
    trainer: str
    purpose: Purpose
    arrival: int
    effective: int


Changes = list[tuple[Change, Rows]]


class ExpiredRows:
    """Collects expiries and retractions of the keys that matter, block by block."""

    def __init__(self) -> None:
        self._found: Sums[Change] = Sums()
        self._keys: dict[Place, list[UInt64s]] = {}

    def concern(self, block: DeltaBlock) -> None:
        """From here on in the log, the keys of this block matter."""
        self._keys.setdefault(Place(block.table, block.shard), []).append(block.keys)

    def take(self, accepted: Accepted) -> None:
        """Take an accepted block of whatever kind."""
        block, place = accepted.block, Place(accepted.block.table, accepted.block.shard)
        if block.purpose is not Purpose.RETRACT and expiry_name(block.trainer) is None:
            return
        keys = self._keys.get(place, [])
        if not keys:
            return
        keys[:] = [np.unique(np.concatenate(keys))] if len(keys) > 1 else keys
        rows = _restricted(Rows(block.keys, block.deltas), keys[0])
        if len(rows.keys):
            self._found.add(Change(place, block.trainer, block.purpose, accepted.arrival, accepted.effective), *rows)

    def changes(self) -> Changes:
        """What was collected, void or not."""
        return list(self._found.items())


def corrections(
    changes: Changes, retracted: Iterable[Part], voids: tuple[EpochRange, ...], since: int
) -> Iterator[Part]:
    """What expiries in force are owed for retractions: those among `changes`, and `retracted`, about to be published.

    Args:
        changes: collected from state `since` on; expiries as of that state or an earlier one are left alone.
    """
    news = [
        (Change(Place(part.table, part.shard), part.trainer, Purpose.RETRACT, _NOW, part.effective), part.rows)
        for part in retracted
        if part.effective is not None
    ]
    for place, found in _by_place(changes):
        here = [*found, *((change, rows) for change, rows in news if change.place == place)]
        for name in _expiries(here):
            if name.state <= since:
                continue
            for epoch, owed in _owed(name, here, voids):
                yield Part(place.table, place.shard, epoch, str(name), owed)
                here.append((Change(place, str(name), Purpose.RETRACT, _NOW, epoch), owed))


def _owed(name: ExpiryName, here: Changes, voids: tuple[EpochRange, ...]) -> Iterator[tuple[int, Rows]]:
    """What one expiry is owed in one place, by the epoch to which it belongs."""
    published = _carried(name, here)
    first = [rows for change, rows in published if change.purpose is Purpose.EXPIRE]
    if not first:
        return
    left = _restricted(_missing(name, first, here, voids), _keys(first))
    for change, rows in published:
        if not is_void(change.effective, voids):
            owed, left = _restricted(left, rows.keys), _restricted(left, rows.keys, invert=True)
            if len(owed.keys):
                yield change.effective, owed


def reinstated(changes: Changes, void: EpochRange, voids: tuple[EpochRange, ...]) -> Iterator[Part]:
    """Expiries that `void` took, as they are to be now: without what was retracted since.

    What earlier attempts gave back counts. A key that has expired once more since needs no other expiry.
    """
    others = tuple(other for other in voids if other != void)
    for place, here in _by_place(changes):
        later = [name for name in _expiries(here) if name.state > void.last]
        again = _keys(
            rows for name in later for change, rows in _carried(name, here) if not is_void(change.effective, voids)
        )
        for name in _expiries(here):
            published = _carried(name, here)
            in_void = [(change, rows) for change, rows in published if change.effective in void]
            taken = [rows for change, rows in in_void if not is_void(change.effective, others)]
            if taken:
                given_back = _keys(rows for change, rows in published if not is_void(change.effective, voids))
                missing = _restricted(_missing(name, taken, here, voids), _keys(taken))
                left = _restricted(missing, np.setdiff1d(again, given_back), invert=True)
                if len(left.keys):
                    yield Part(place.table, place.shard, None, str(name), left)


def _by_place(changes: Changes) -> Iterator[tuple[Place, Changes]]:
    for place in sorted({change.place for change, _ in changes}):
        yield place, [(change, rows) for change, rows in changes if change.place == place]


def _expiries(changes: Changes) -> list[ExpiryName]:
    """Expiries named in changes, in their order."""
    names = {name for change, _ in changes if (name := expiry_name(change.trainer)) is not None}
    return sorted(names, key=lambda name: name.state)


def _carried(name: ExpiryName, changes: Changes) -> Changes:
    """The blocks in which an expiry was published, and published again; not its corrections."""
    return [
        (change, rows)
        for change, rows in changes
        if change.trainer == str(name) and change.purpose is not Purpose.RETRACT
    ]


def _missing(name: ExpiryName, published: list[Rows], changes: Changes, voids: tuple[EpochRange, ...]) -> Rows:
    """What must be added to all that bears an expiry's identity and is in force, so that the law holds.

    Args:
        published: what it published first: minus what the keys had been.
    """
    counted = [
        Rows(rows.keys, -rows.deltas)
        for change, rows in changes
        if not is_void(change.effective, voids) and (change.trainer == str(name) or _is_taken_back(name, change))
    ]
    return total([*published, *counted])


def _is_taken_back(name: ExpiryName, change: Change) -> bool:
    """Whether a change took back what the expiry had expired already: a later retraction of an earlier epoch.

    A correction of another expiry may be one.
    """
    return change.purpose is Purpose.RETRACT and change.arrival >= name.state > change.effective


def _keys(parts: Iterable[Rows]) -> UInt64s:
    return np.concatenate([_NO_KEYS, *(rows.keys for rows in parts)])


def _restricted(rows: Rows, keys: UInt64s, *, invert: bool = False) -> Rows:
    """Only the rows of these keys (or of all others)."""
    chosen = np.isin(rows.keys, keys, invert=invert)
    return Rows(rows.keys[chosen], rows.deltas[chosen])
