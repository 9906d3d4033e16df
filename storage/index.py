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
from ekko.storage.memory import Array, Column

Slots = npt.NDArray[np.int64]

_PAGE = 1024
_IN_PAGE = np.int64(_PAGE - 1)
_PAGE_SHIFT = np.uint64(54)  # the upper 10 bits choose the entry, the lower ones the page
_TARGET_LOAD = 0.3  # pages not yet split in a round hold up to twice that; see MEASURED: probes get long from 0.6 on
_FIRST_PAGES = 4
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

    An entry is (key, slot + 1); slot + 1 = 0 means empty. A page's version is odd while the page is rewritten.
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

    @property
    def pages(self) -> int:
        """Pages in use."""
        return int(self._header[_HEADER_PAGES])

    @property
    def nbytes(self) -> int:
        """Bytes of memory in use."""
        return self.pages * _PAGE * 16

    def find(self, keys: UInt64s) -> Slots:
        """Slot of every key, -1 where absent; for the writer, who needs no version checks."""
        return self._probe(keys, self._home(keys, self.pages))

    def find_shared(self, keys: UInt64s) -> Slots:
        """Slot of every key, -1 where absent; for readers: a miss counts only if its page was at rest meanwhile."""
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
        return slots

    def insert(self, keys: UInt64s, slots: Slots, held: int) -> None:
        """Add distinct keys that are absent; `held` is the number of keys held before."""
        self._grow(held + len(keys))
        self._place(keys, slots, self._home(keys, self.pages))

    def remove(self, keys: UInt64s) -> None:
        """Take keys out by rewriting the pages they stand in; absent keys are ignored."""
        home = self._home(keys, self.pages)
        positions = home.copy()
        present = self._probe(keys, positions) >= 0
        pages = np.unique(home[present] >> 10)
        if not pages.size:
            return
        self._versions[pages] += np.uint32(1)
        self._flat[positions[present] * 2 + 1] = 0
        places = (pages[:, None] * _PAGE + np.arange(_PAGE)[None, :]).ravel()
        entries = self._entries[places]
        live = entries[entries[:, 1] != 0]
        self._entries[places] = 0
        self._place(live[:, 0], live[:, 1].astype(np.int64) - 1, self._home(live[:, 0], self.pages))
        self._versions[pages] += np.uint32(1)

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
        """Slots of the keys; moves `positions` on to where each search ended."""
        entries = np.take(self._entries, positions, axis=0, mode="clip")
        slots = entries[:, 1].view(np.int64) - 1
        pending = np.flatnonzero((slots >= 0) & (entries[:, 0] != keys))
        while pending.size:
            onward = _next(positions[pending])
            positions[pending] = onward
            entries = np.take(self._entries, onward, axis=0, mode="clip")
            reached = entries[:, 1].view(np.int64) - 1
            slots[pending] = reached
            pending = pending[(reached >= 0) & (entries[:, 0] != keys[pending])]
        return slots

    def _place(self, keys: UInt64s, slots: Slots, positions: Slots) -> None:
        """Write absent keys from `positions` on. Rivals for an entry all write their key; who reads it back has won."""
        while True:
            free = np.flatnonzero(self._flat.take(positions * 2 + 1) == 0)
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
            self._split(first, min(target - pages, level - first))

    def _split(self, first: int, count: int) -> None:
        pages = self.pages
        source = self._entries[first * _PAGE : (first + count) * _PAGE]
        live = source[source[:, 1] != 0]
        for rewritten in (slice(first, first + count), slice(pages, pages + count)):
            self._versions[rewritten] += np.uint32(1)
        source[:] = 0
        self._header[_HEADER_PAGES] = pages + count
        self._place(live[:, 0], live[:, 1].astype(np.int64) - 1, self._home(live[:, 0], pages + count))
        for rewritten in (slice(first, first + count), slice(pages, pages + count)):
            self._versions[rewritten] += np.uint32(1)


def _next(positions: Slots) -> Slots:
    """The entry after each one, wrapping inside its page."""
    return (positions & ~_IN_PAGE) | ((positions + 1) & _IN_PAGE)
