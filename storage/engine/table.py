"""One table of a model at one replica: all that is done to rows and journals beside applying deltas."""

import numpy as np

from ekko.schemas.errors import MemoryExhausted
from ekko.storage.engine.applying import ApplyingTable
from ekko.storage.engine.chains import label_of_entries, later_entries
from ekko.storage.engine.distinct import distinct
from ekko.storage.engine.index import Slots
from ekko.storage.engine.journal import nobody
from ekko.storage.engine.reading import nonzero_rows
from ekko.storage.engine.scatter import scatter

_LET_GO = 65_536
_ENTRIES_AT_ONCE = 16_384
"""What is worked out of so many entries fits into the cache; longer arrays would be new memory for the process each
time, which costs more than what they are for."""
_ENTRY_BITS = 32
_ENTRY_MASK = (1 << _ENTRY_BITS) - 1
_ABOVE_ALL = np.iinfo(np.int64).max


class Table(ApplyingTable):
    """Rows and journals of one table; see `ApplyingTable` for its making."""

    def undo(self, first: int, last: int) -> int:
        """Take back what the epochs of journals first..last added; the number of rows changed.

        Most keys have one entry there and none after it: their old row is that entry's value, no chain need be walked.
        A capture that is not whole is given up before: it is not told of rows that change here.
        """
        assert self._before_rows is nobody
        entries = self.pool.select(first, last)
        ordered = self.pool.slots.take(entries).astype(np.int64)  # in place: see _ENTRIES_AT_ONCE
        ordered <<= _ENTRY_BITS
        ordered |= entries
        ordered.sort()
        starts = range(0, len(ordered), _ENTRIES_AT_ONCE)
        rows = sum(self._undo_part(ordered, start, first, last) for start in starts)
        self.pool.free(entries)
        return rows

    def pin(self, state: int, room: int) -> None:
        """Keep what every key was at the start of `state` in memory, one look away; instead of any other state.

        Raises:
            MemoryExhausted: its values do not fit into `room` bytes; unpin then.
        """
        entries = self.pinned.pin(state, self.pool, self.arena.top)
        needed = int((self.pool.places.take(entries) == 0).sum()) * self.declaration.dim * 4
        if needed > room:
            raise MemoryExhausted(
                f"{needed} bytes of table {self.declaration.name} as of state {state} do not fit into {room}",
                hint="give the store more --memory, or pin a newer state",
            )
        for start in range(0, len(entries), _LET_GO):
            self._bring_in(entries[start : start + _LET_GO])

    def drop_below(self, label: int) -> None:
        """Forget the journals below `label`."""
        self.pool.free(self.pool.select(0, label - 1))

    def unite(self, source: int, target: int) -> None:
        """Make the journals `target` < `source`, with none between them, one: the older value of a key stands."""
        entries = self.pool.select(source, source)
        doubles = [self._unite(entries[run], source, target) for run in self._runs(len(entries))]
        if doubles:
            self.pool.free(np.concatenate(doubles))

    def let_go(self, last: int) -> None:
        """Forget the values of durable journal entries with labels up to `last`."""
        pool = self.pool
        entries = pool.select(0, last)
        entries = entries[(pool.dirty.take(entries) == 0) & (pool.places.take(entries) != 0)]
        entries = entries[~self.pinned.holds(pool, entries)]
        for start in range(0, len(entries), _LET_GO):
            part = entries[start : start + _LET_GO]
            slots = distinct(pool.slots.take(part)) - 1
            versions = self.arena.begin_write(slots)
            pool.let_go(part)
            self.arena.end_write(slots, versions)

    def remove(self, slots: Slots) -> Slots:
        """Forget those of the slots that hold nothing: a zero row, no journal entry, nothing to be made durable.

        A slot may be named twice, or be free by now: given back twice, it would become two keys' row.
        The slots that have only a journal entry are returned, to be tried again.
        """
        arena = self.arena
        slots = distinct(arena.in_use(slots))
        entries = self.pool.follow(arena.heads.take(slots), slots, np.full(len(slots), _ABOVE_ALL))
        idle = (arena.dirty.take(slots) == 0) & (arena.hashes.take(slots) == 0)
        idle &= ~nonzero_rows(arena.rows.take(slots, axis=0))
        gone = slots[idle & (entries < 0)]
        if len(gone):
            self.index.remove(arena.keys.take(gone))
            arena.free(gone)
        named: Slots = slots[idle & (entries >= 0)]
        return named

    def _undo_part(self, ordered: Slots, start: int, first: int, last: int) -> int:
        """Undo for the slots whose first entry in journals first..last stands in this part; how many they are.

        Args:
            ordered: owner + 1 and entry of all of them, in one number each, ascending.
        """
        stop = min(start + _ENTRIES_AT_ONCE, len(ordered))
        slots, entries = (ordered[start:stop] >> _ENTRY_BITS) - 1, ordered[start:stop] & _ENTRY_MASK
        begins = np.ones(stop - start + 1, dtype=np.bool_)
        np.not_equal(slots[1:], slots[:-1], out=begins[1:-1])
        begins[0] = start == 0 or ordered[start - 1] >> _ENTRY_BITS != slots[0] + 1
        begins[-1] = stop == len(ordered) or ordered[stop] >> _ENTRY_BITS != slots[-1] + 1
        plain = begins[:-1] & begins[1:] & (self.arena.heads.take(slots) == entries + 1)
        if plain.all():
            self._undo_plain(slots, entries, first, last)
            return len(slots)
        self._undo_plain(slots[plain], entries[plain], first, last)
        others = slots[begins[:-1] & ~plain]
        for run in self._runs(len(others)):
            self._take_back(others[run], first, last)
        return int(np.count_nonzero(begins[:-1]))

    def _runs(self, count: int) -> list[slice]:
        """Parts of so many rows, each as long as what may be written at once."""
        return [slice(start, start + self._run) for start in range(0, count, self._run)]

    def _take_back(self, slots: Slots, first: int, last: int) -> None:
        """Undo for slots with entries in journals first..last: those without a later one get their old row as it is."""
        later = self.arena.newest.take(slots) > last + 1
        early = slots[~later]
        before = later_entries(self.arena, self.pool, early, first - 1)
        self._restore(early, before.oldest, before.reached, first, last)
        self._take_back_before(slots[later], first, last)
        self.arena.dirty[slots] = 1

    def _undo_plain(self, slots: Slots, entries: Slots, first: int, last: int) -> None:
        """Undo for slots whose only entry in journals first..last is their newest one."""
        below = self.pool.follow(self.pool.previous.take(entries), slots, np.full(len(slots), first))
        for run in self._runs(len(slots)):
            self._restore(slots[run], entries[run], below[run], first, last)
        self.arena.dirty[slots] = 1

    def _restore(self, slots: Slots, entries: Slots, below: Slots, first: int, last: int) -> None:
        """Make the entries' values rows again, and what is below them (-1 for none) the newest entries."""
        arena, pool = self.arena, self.pool
        rows = self._values(entries)
        self.overflows.notice(rows)
        versions = arena.begin_write(slots)
        scatter(arena.rows, slots, rows)
        arena.heads[slots] = below + 1
        arena.newest[slots] = label_of_entries(pool, below)
        self.pinned.undo(pool, slots, first, last, None)
        arena.end_write(slots, versions)

    def _take_back_before(self, slots: Slots, first: int, last: int) -> None:
        """Take the contribution of first..last from rows and from the entries after them."""
        arena, pool = self.arena, self.pool
        after = later_entries(arena, pool, slots, last)
        before = later_entries(arena, pool, slots, first - 1)
        self._bring_in(after.entries)
        changes = self._values(before.oldest)
        changes -= pool.read(after.oldest)
        rows = arena.rows.take(slots, axis=0)
        rows += changes
        versions = arena.begin_write(slots)
        scatter(arena.rows, slots, rows)
        pool.add_to(after.entries, changes.take(after.owners, axis=0))
        pool.previous[after.oldest] = before.reached + 1
        self.pinned.undo(pool, slots, first, last, after.oldest)
        arena.end_write(slots, versions)
        self.overflows.check(rows, changes, arena.keys, slots)

    def _unite(self, entries: Slots, source: int, target: int) -> Slots:
        """Relabel entries; those whose key the older journal holds too take over its value. The doubles to be freed."""
        arena, pool = self.arena, self.pool
        slots = pool.slots.take(entries).astype(np.int64) - 1
        older = pool.follow(pool.previous.take(entries), slots, np.full(len(entries), source))
        both = (older >= 0) & (pool.labels.take(np.maximum(older, 0)) == target)
        kept: Slots = entries[both]
        doubles: Slots = older[both]
        pool.before_change(entries)
        pool.before_change(doubles)
        versions = arena.begin_write(slots)
        newer = pool.places.take(kept)
        pool.places[kept] = pool.places.take(doubles)
        pool.places[doubles] = newer
        pool.previous[kept] = pool.previous.take(doubles)
        pool.dirty[kept] = pool.dirty.take(doubles)
        pool.tallies.move(source, target, pool.hashes.take(entries))
        pool.hashes[kept], pool.hashes[doubles] = pool.hashes.take(doubles), pool.hashes.take(kept)
        pool.labels[entries] = target
        self.pinned.replace(slots[both], doubles, kept)
        at_head = arena.heads.take(slots) == entries + 1
        arena.newest[slots[at_head]] = target + 1
        arena.end_write(slots, versions)
        return doubles
