"""One model's parameters at one replica: rows at memory speed, journals to undo epochs, a keeper underneath.

One thread applies, undoes and flushes; any thread (and any process, see `reader_handle`) reads.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange, is_void
from ekko.schemas.errors import ConfigurationError, MemoryExhausted
from ekko.schemas.hashing import UInt64s, checksum
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.admission import check_dim, check_identity, check_shapes
from ekko.storage.arena import row_bytes
from ekko.storage.durable import Durable
from ekko.storage.entry_source import EntrySource
from ekko.storage.flush import Flusher
from ekko.storage.journal_budget import over_budget, relieve
from ekko.storage.journal_directory import JournalDirectory
from ekko.storage.manifest import Manifest, decode_manifest
from ekko.storage.reading import Bools
from ekko.storage.recovery import recover
from ekko.storage.rocks import RocksDurable
from ekko.storage.table import Table

_FLUSH_INTERVAL_S = 2.0
_FLUSH_ROWS = 500_000
_ITEMS_AT_ONCE = 65_536
_SLOTS_MAX = (1 << 31) - 2


class Store:
    """Rows and journals of one model. Made by `open`.

    Attributes:
        state: what was recovered from disk (positions of zero in a new store).
    """

    def __init__(self, model: ModelDeclaration, state: ReplicaState, memory_bytes: int, durable: Durable) -> None:
        self.state = state
        self._model = model
        self._memory = memory_bytes
        self._durable = durable
        self._directory = JournalDirectory()
        self._tables: dict[str, Table] = {}
        self._flusher = Flusher(durable, self._tables)
        self._touched = 0
        self._last_flush_s: float | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        model: ModelDeclaration,
        shards: Sequence[int],
        *,
        region_incarnation: int,
        memory_bytes: int,
        durable: Durable | None = None,
    ) -> "Store":
        """Open or create the store in `path`, and read back what it holds.

        Args:
            model: its declaration as of the catalogue, incarnation filled in.
            shards: the shards that this replica owns.
            memory_bytes: bound of rows, index, journals and flush buffers.
            durable: who keeps it; RocksDB in `path` if None.

        Raises:
            StoreLocked: another process has the folder open.
            StoreCorrupt: what is on disk fails a check.
            ConfigurationError: the folder belongs to another model, incarnation, region or set of shards.
        """
        keeper = RocksDurable(path) if durable is None else durable
        try:
            incarnation = -1 if model.incarnation is None else model.incarnation
            positions = {shard: ShardPosition() for shard in sorted(shards)}
            state = ReplicaState(model.name, incarnation, region_incarnation, positions)
            store = cls(model, state, memory_bytes, keeper)
            for table in model.tables:
                store.add_table(table)
            stored = keeper.manifest()
            if stored is not None:
                store._recover(decode_manifest(stored), path)
        except BaseException:
            keeper.close()
            raise
        return store

    def _recover(self, manifest: Manifest, path: Path) -> None:
        check_identity(path, manifest.state, self.state)
        for entry in manifest.tables:
            if entry.name in self._tables:
                check_dim(path, entry, self._tables[entry.name].declaration)
        self._directory.recover(manifest)
        recover(self._durable, manifest, self._tables)
        self.state = manifest.state
        self._flusher.recover(manifest)

    def add_table(self, table: TableDeclaration) -> None:
        """Make room for a table that the catalogue has gained; harmless when repeated."""
        if table.name not in self._tables:
            rows = min(self._memory // row_bytes(table.dim) + 1, _SLOTS_MAX)
            entries = min(self._memory // (table.dim * 4) + 1, _SLOTS_MAX)
            source = EntrySource(table.name, table.dim, self._durable, self._directory)
            self._tables[table.name] = Table(table, rows, entries, source)

    @property
    def voids(self) -> tuple[EpochRange, ...]:
        """Voids undone here; deltas of their epochs are dropped."""
        return self._directory.voids

    @property
    def bound(self) -> int:
        """The oldest model state that can be undone or read here."""
        return self._directory.bound

    @property
    def overflows(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Table -> (rows whose values wrapped around since the start, the last such keys); only tables with some."""
        return {
            name: (table.overflows.count, tuple(table.overflows.last_keys))
            for name, table in self._tables.items()
            if table.overflows.count
        }

    def apply(self, table: str, arrival: int, effective: int, keys: UInt64s, deltas: Int32s) -> int:
        """Add deltas of epoch `effective`, which arrived in epoch `arrival`; the number of rows changed.

        Deltas of a key given twice are summed. Nothing happens if the epoch is void.

        Args:
            keys: uint64[N]. deltas: int32[N, dim].

        Raises:
            MemoryExhausted: the memory bound would be passed; nothing was changed.
            BadInput: shapes or types are wrong; nothing was changed.
        """
        held = self._table(table)
        check_shapes(held.declaration, keys, deltas)
        if not len(keys) or is_void(effective, self._directory.voids):
            return 0
        self._check_room(held, keys)
        journal = effective >= self._directory.bound
        label = self._directory.label_of(effective)
        if journal:
            self._directory.number_of(label)
        rows = held.apply(keys, deltas, label, arrival, journal=journal)
        self._touched += rows
        return rows

    def undo(self, void: EpochRange) -> int:
        """Take back what the epochs of `void` added, now and for good; the number of rows changed. 0 when repeated.

        Raises:
            StateUnavailable: the journals do not reach back that far; nothing was changed.
        """
        directory = self._directory
        if void in directory.voids:
            return 0
        directory.check_state(void.first)
        labels = [label for label in directory.labels if label in void]
        rows = sum(table.undo(void.first, void.last) for table in self._tables.values()) if labels else 0
        directory.remove(labels)
        directory.voids = (*directory.voids, void)
        self._touched += rows
        return rows

    def raise_bound(self, state: int) -> None:
        """Give up undoing states before `state`, and forget their journals; nothing if the bound is there already."""
        if state <= self._directory.bound:
            return
        self._directory.raise_bound(state)
        for table in self._tables.values():
            table.drop_below(self._directory.bound)

    def withdraw(self, ranges: Sequence[EpochRange]) -> None:
        """Withdraw model states: the journals on both sides of each become one. Voids known so far must be undone."""
        bound = self._directory.bound
        unions = self._directory.withdraw(ranges)
        if self._directory.bound > bound:
            for table in self._tables.values():
                table.drop_below(self._directory.bound)
        for source, target in unions:
            for table in self._tables.values():
                table.unite(source, target)

    def lookup(self, table: str, keys: UInt64s, as_of: int | None = None) -> tuple[Int32s, Bools]:
        """Rows of the keys, now or at the start of epoch `as_of`: int32[N, dim] (zero if absent), bool[N] found.

        From any thread; never torn, never waits for applies.

        Raises:
            StateUnavailable: `as_of` is withdrawn or below the bound.
        """
        if as_of is None:
            return self._table(table).reader.lookup(keys)
        self._directory.check_state(as_of)
        found = self._table(table).reader.lookup(keys, as_of)
        self._directory.check_state(as_of)  # its journals may have gone while they were read
        return found

    def items(self, table: str, as_of: int | None = None) -> Iterator[tuple[UInt64s, Int32s]]:
        """All rows that are not zero, in runs of keys uint64[N] and rows int32[N, dim]."""
        arena, index = self._table(table).arena, self._table(table).index
        for start in range(0, arena.top, _ITEMS_AT_ONCE):
            keys = arena.keys[start : min(start + _ITEMS_AT_ONCE, arena.top)].copy()
            keys = keys[index.find_shared(keys) == np.arange(start, start + len(keys))]  # the others' slots are free
            rows, found = self.lookup(table, keys, as_of)
            yield keys[found], rows[found]

    def checksum(self, table: str, as_of: int | None = None) -> int:
        """`schemas.hashing.checksum` over all rows, now or at the start of epoch `as_of`."""
        return sum(checksum(table, keys, rows) for keys, rows in self.items(table, as_of)) % (1 << 64)

    def row_count(self, table: str) -> int:
        """Rows that are not zero."""
        return sum(len(keys) for keys, _ in self.items(table))

    @property
    def flushed(self) -> ReplicaState | None:
        """State of the last durable flush, None before the first."""
        return self._flusher.flushed

    def flush_due(self, now_s: float) -> bool:
        """Whether it is time to flush: rows enough have changed, or time enough has passed, and none is under way."""
        if self._flusher.busy:
            return False
        if self._last_flush_s is None:
            self._last_flush_s = now_s
        full = self._touched >= _FLUSH_ROWS or over_budget(self._tables, self._memory)
        if not full and now_s - self._last_flush_s < _FLUSH_INTERVAL_S:
            return False
        self._last_flush_s = now_s
        return True

    def begin_flush(self, state: ReplicaState) -> None:
        """Capture rows, journals and `state` as they are now; they become durable in the background, in one commit.

        Waits for a flush under way. Voids and bound in `state` are replaced by the store's own.

        Raises:
            StoreUnwritable: the flush that was under way failed.
        """
        self._settle(wait=True)
        self._touched = 0
        self._flusher.begin(state, self._directory)

    def poll_flush(self) -> bool:
        """Whether no flush is under way.

        Raises:
            StoreUnwritable: the last one failed: nothing of it is on disk, everything is still in memory.
        """
        return self._settle(wait=False)

    def flush(self, state: ReplicaState) -> None:
        """Like `begin_flush`, and wait until it is durable."""
        self.begin_flush(state)
        self._settle(wait=True)

    def memory_bytes(self) -> int:
        """Bytes of rows, index, journals and flush buffers in use."""
        return sum(table.memory_bytes() for table in self._tables.values()) + self._durable.memory_bytes()

    def close(self) -> None:
        """Let a flush under way end and release the folder. What was not flushed is read from the lanes again."""
        try:
            self._settle(wait=True)
        finally:
            for table in self._tables.values():
                table.close()
            self._durable.close()

    def _settle(self, *, wait: bool) -> bool:
        """Whether no flush is under way; once one has ended, let go what needs no memory any more."""
        busy = self._flusher.busy
        done = self._flusher.wait() if wait else self._flusher.poll()
        if busy and done:
            self._flusher.drop_empty(self._directory.bound)
            self.raise_bound(relieve(self._tables, self._directory, self._memory))
        return done

    def _table(self, name: str) -> Table:
        try:
            return self._tables[name]
        except KeyError:
            hint = f"its tables: {', '.join(self._tables) or 'none'}"
            raise ConfigurationError(f"model {self._model.name} has no table {name!r}", hint=hint) from None

    def _check_room(self, table: Table, keys: UInt64s) -> None:
        room = self._memory - self.memory_bytes()
        if table.most(len(keys)) <= room or table.growth(keys) <= room:
            return
        raise MemoryExhausted(
            f"model {self._model.name}: {len(keys)} rows of table {table.declaration.name} do not fit into "
            f"{self._memory} bytes, {self.memory_bytes()} are in use",
            hint="give the store more --memory, fewer --shards, or expire rows",
        )
