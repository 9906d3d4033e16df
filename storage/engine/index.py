"""uint64 key -> int32 slot: a vectorised hash index that grows page by page, so that no growth ever stalls an apply.

Linear hashing (Litwin, "Linear hashing: a new tool for file and table addressing", VLDB 1980) over pages of 1,024
entries, open addressing with linear probing inside a page. Growing splits the next few pages in turn and appends their
halves: address space is reserved once, entries never move further, and readers in other processes see growth through
one number. Keys are mixed with a random seed, so chosen or sequential keys cannot pile up.
"""

import secrets
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ekko.schemas.hashing import UInt64s, splitmix64
from ekko.storage.engine.memory import Array, Column
from ekko.storage.engine.patience import Patience

Slots = npt.NDArray[np.int64]

_PAGE = 1024
_IN_PAGE = np.int64(_PAGE - 1)
_PAGE_SHIFT = np.uint64(54)  # the upper 10 bits choose the entry, the lower ones the page
_TARGET_LOAD = 0.3  # pages not yet split in a round hold up to twice that; see MEASURED: probes get long from 0.6 on
_FIRST_PAGES = 4
_WINDOW = 8
_GRAVE = np.uint64(1 << 31)
_BURIED = np.int64((1 << 31) - 1)
_REMOVALS_A_SWEEP = 64  # a page is cleaned for so many removals: graves never take more than 6 % of the entries
_STEPS = np.arange(1, _WINDOW + 1)
_HEADER_PAGES, _HEADER_SEED = 0, 1

ENTRY_BYTES = int(16 / _TARGET_LOAD) + 1
"""Bytes of index a key costs on average."""


def index_columns(capacity: int) -> list[Column]:
    """Arrays of an index for at most `capacity` keys."""
    pages = int(capacity / (_PAGE * _TARGET_LOAD)) + _FIRST_PAGES + 1
    return [
        Column("index_header", "<u8", (2,)),
        Column("index_versions", "<u4", (pages,)),
        Column("index_entries", "<u8", (pages * _PAGE, 2)),
    ]


class KeyIndex:
    """The index over a segment's arrays; one writer, readers in any thread or process.

    An entry is (key, slot + 1); 0 for slot + 1 means empty, `_GRAVE` that a key was removed here and searches go on.
    A page's version is odd while the page is rewritten.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._header = arrays["index_header"]
        self._versions = arrays["index_versions"]
        self._entries = arrays["index_entries"]
        self._flat = self._entries.reshape(-1)
        if not self._header[_HEADER_PAGES]:
            self._header[_HEADER_SEED] = secrets.randbits(64)
            self._header[_HEADER_PAGES] = _FIRST_PAGES
        self._seed = np.uint64(self._header[_HEADER_SEED])
        self._swept = 0

    @property
    def pages(self) -> int:
        """Pages in use."""
        return int(self._header[_HEADER_PAGES])

    @property
    def nbytes(self) -> int:
        """Bytes of memory in use."""
        return self.pages * _PAGE * 16

    def reserve(self, keys: int) -> None:
        """Make room for so many keys in an index that holds none: nothing is split while they come."""
        target = int(keys / (_PAGE * _TARGET_LOAD)) + 1
        self._header[_HEADER_PAGES] = min(max(self.pages, target), len(self._versions))

    def find(self, keys: UInt64s) -> Slots:
        """Slot of every key, -1 where absent; for the writer, who needs no version checks."""
        return self._probe(keys, self._home(keys, self.pages))

    def find_shared(self, keys: UInt64s) -> Slots:
        """Slot of every key, -1 where absent; for readers: a miss counts only if its page was at rest meanwhile.

        Raises:
            NotReady: the writer died while it rewrote a page.
        """
        patience = Patience()
        slots = np.full(len(keys), -1, dtype=np.int64)
        pending = np.arange(len(keys))
        while pending.size:
            pages = self.pages
            home = self._home(keys[pending], pages)
            before = self._versions.take(home >> 10)
            slots[pending] = self._probe(keys[pending], home.copy())
            missing = np.flatnonzero(slots[pending] < 0)
            if not missing.size:
                break
            before = before[missing]
            moved = (before & 1 == 1) | (self._versions.take(home[missing] >> 10) != before)
            if self.pages == pages:
                missing = missing[moved]
            pending = pending[missing]
            if pending.size:
                patience.spend("a page of the index")
        return slots

    def insert(self, keys: UInt64s, slots: Slots, held: int) -> None:
        """Add distinct keys that are absent; `held` is the number of keys held before."""
        self._grow(held + len(keys))
        self._place(keys, slots, self._home(keys, self.pages))

    def remove(self, keys: UInt64s) -> None:
        """Take distinct keys out, and clean some pages of what earlier removals left; absent keys are ignored."""
        positions = self._home(keys, self.pages)
        present = self._probe(keys, positions) >= 0
        self._flat[positions[present] * 2 + 1] = _GRAVE
        for _ in range(-(-len(keys) // _REMOVALS_A_SWEEP)):
            self._swept %= self.pages
            self._rewrite(self._swept, 1, added=0)
            self._swept += 1

    def _home(self, keys: UInt64s, pages: int) -> Slots:
        """Entry at which the search for every key begins, with `pages` pages in use."""
        hashes = splitmix64(keys ^ self._seed)
        level = pages.bit_length() - 1
        page = hashes & np.uint64((1 << level) - 1)
        split = pages - (1 << level)
        if split:
            page = np.where(page < np.uint64(split), hashes & np.uint64((2 << level) - 1), page)
        page *= np.uint64(_PAGE)
        page += hashes >> _PAGE_SHIFT
        return page.view(np.int64)

    def _probe(self, keys: UInt64s, positions: Slots) -> Slots:
        """Slots of the keys; moves `positions` on to where each search ended.

        Most keys stand at home; the others are searched by windows, so that a few long searches take few calls.
        """
        entries = self._entries.take(positions, axis=0, mode="clip")
        slots = entries[:, 1].view(np.int64) - 1
        pending = np.flatnonzero((slots >= 0) & ((entries[:, 0] != keys) | (slots == _BURIED)))
        while pending.size:
            window = _onward(positions.take(pending))
            entries = self._entries.take(window, axis=0, mode="clip")
            stored = entries[:, :, 1]
            ends = (stored == 0) | ((entries[:, :, 0] == keys.take(pending)[:, None]) & (stored != _GRAVE))
            ended, places = _first_of_eight(ends)
            positions[pending] = window.ravel().take(places)
            slots[pending] = entries.reshape(-1, 2).take(places, axis=0)[:, 1].view(np.int64) - 1
            pending = pending[~ended]
        return slots

    def _place(self, keys: UInt64s, slots: Slots, positions: Slots) -> None:
        """Write absent keys from `positions` on. Rivals for an entry all write their key; who reads it back has won."""
        while True:
            stored = self._flat.take(positions * 2 + 1)
            free = np.flatnonzero((stored == 0) | (stored == _GRAVE))
            claimed = positions[free] * 2
            self._flat[claimed] = keys[free]
            won = self._flat.take(claimed) == keys[free]
            self._flat[claimed[won] + 1] = slots[free[won]] + 1
            waiting = np.ones(len(keys), dtype=np.bool_)
            waiting[free[won]] = False
            if not waiting.any():
                return
            keys, slots, positions = keys[waiting], slots[waiting], _next(positions[waiting])

    def _grow(self, keys: int) -> None:
        """Split pages in turn until `keys` keys meet the target load."""
        target = int(keys / (_PAGE * _TARGET_LOAD)) + 1
        while self.pages < target:
            pages = self.pages
            level = 1 << (pages.bit_length() - 1)
            first = pages - level
            count = min(target - pages, level - first)
            self._rewrite(first, count, added=count)

    def _rewrite(self, first: int, count: int, added: int) -> None:
        """Place the keys of some pages anew, once `added` pages more are in use (as many as are split, or none)."""
        pages = self.pages
        source = self._entries[first * _PAGE : (first + count) * _PAGE]
        live = source[(source[:, 1] != 0) & (source[:, 1] != _GRAVE)]
        touched = (slice(first, first + count), slice(pages, pages + added))
        for rewritten in touched:
            self._versions[rewritten] += np.uint32(1)
        source[:] = 0
        self._header[_HEADER_PAGES] = pages + added
        self._place(live[:, 0], live[:, 1].astype(np.int64) - 1, self._home(live[:, 0], pages + added))
        for rewritten in touched:
            self._versions[rewritten] += np.uint32(1)


def _onward(positions: Slots) -> Slots:
    """The window of entries after each one, int64[N, window], wrapping inside its page."""
    return (positions[:, None] & ~_IN_PAGE) | ((positions[:, None] + _STEPS) & _IN_PAGE)


def _first_of_eight(ends: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], Slots]:
    """Of bool[N, 8]: which rows have a True, bool[N]; flat index of each row's first one (of its last cell if none).

    Eight bools are one little-endian number; its lowest set bit tells the first one (reductions over so short an
    axis take five times as long).
    """
    eights = ends.view("<u8")[:, 0]
    ended = eights != 0
    lowest = (eights & (~eights + np.uint64(1))).astype(np.float64)
    place = ((lowest.view(np.int64) >> 52) - 1023) >> 3  # the exponent of a power of two is the bit's number
    return ended, np.arange(0, len(eights) * _WINDOW, _WINDOW) + np.where(ended, place, _WINDOW - 1)


def _next(positions: Slots) -> Slots:
    """The entry after each one, wrapping inside its page."""
    return (positions & ~_IN_PAGE) | ((positions + 1) & _IN_PAGE)
