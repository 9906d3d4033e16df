"""One model's parameters at one replica: rows at memory speed, journals to undo epochs, a keeper underneath.

One thread applies, undoes and flushes; any thread (and any process, see `reader_handle`) reads.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import EpochRange, is_void
from ekko.schemas.errors import MemoryExhausted
from ekko.schemas.hashing import UInt64s
from ekko.schemas.quantize import Int32s
from ekko.schemas.replicas import ReplicaState, ShardPosition
from ekko.storage.disk.durable import Durable
from ekko.storage.disk.entry_source import EntrySource
from ekko.storage.disk.flush import Flusher
from ekko.storage.disk.manifest import Manifest, TableEntry, decode_manifest, decode_voids, encode_voids
from ekko.storage.disk.pace import FlushPace
from ekko.storage.disk.recovery import recover
from ekko.storage.disk.rocks import RocksDurable
from ekko.storage.engine.admission import check_dim, check_identity, check_memory, check_room, check_shapes, locating
from ekko.storage.engine.arena import row_bytes
from ekko.storage.engine.journal_budget import over_budget, relieve
from ekko.storage.engine.table import Table
from ekko.storage.shared.reader_handle import ReaderHandle
from ekko.storage.store_states import StoreStates

_SLOTS_MAX = (1 << 31) - 2


class Store(StoreStates):
    """Rows and journals of one model. Made by `open`.

    Attributes:
        state: what was recovered from disk (positions of zero in a new store).
    """

    def __init__(
        self, path: Path, model: ModelDeclaration, state: ReplicaState, memory_bytes: int, durable: Durable
    ) -> None:
        super().__init__(path, model, tuple(state.shards), memory_bytes, durable)
        self.state = state
        self._path = path
        self._flusher = Flusher(durable, self._tables)
        self._kept: tuple[EpochRange, ...] = ()
        self._touched = 0
        self._pace = FlushPace()

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
            MemoryExhausted: its rows or journal entries do not fit into `memory_bytes`.
        """
        keeper = RocksDurable(path) if durable is None else durable
        try:
            incarnation = -1 if model.incarnation is None else model.incarnation
            positions = {shard: ShardPosition() for shard in sorted(shards)}
            state = ReplicaState(model.name, incarnation, region_incarnation, positions)
            store = cls(path, model, state, memory_bytes, keeper)
            with locating(path):
                store._recover(model.tables, keeper.manifest())
        except BaseException:
            keeper.close()
            raise
        return store

    def _recover(self, tables: Sequence[TableDeclaration], stored: bytes | None) -> None:
        for declared in tables:
            self._make_table(declared)
        manifest = None if stored is None else decode_manifest(stored)
        if manifest is not None:
            self._make_stored_tables(manifest)
        self._sharing.announce(self._tables)
        if manifest is None:
            return
        self._directory.recover(manifest)
        recover(self._durable, manifest, self._tables, self._memory)
        with suppress(MemoryExhausted):  # nothing is pinned then; the next barrier asks for it again
            self._pin(self._directory.pinned)
        self._flusher.recover(manifest)
        self._undo_kept()
        self.state = replace(manifest.state, voids=self._directory.voids)
        self._sharing.limit(self._directory)

    def _make_stored_tables(self, manifest: Manifest) -> None:
        check_identity(self._path, manifest.state, self.state)
        for entry in manifest.tables:
            if entry.name not in self._tables:  # the catalogue, read up to an older offset, does not know it yet
                self._make_table(TableDeclaration(entry.name, entry.dim))
            check_dim(self._path, entry, self._tables[entry.name].declaration)
        check_memory(self._path, manifest.tables, self._memory)

    def _undo_kept(self) -> None:
        """Undo again what was undone in memory since the last flush."""
        kept = self._durable.kept_voids()
        self._kept = self._directory.voids if kept is None else decode_voids(kept)
        for void in self._kept:
            self.undo(void)

    def add_table(self, table: TableDeclaration) -> None:
        """Make room for a table that the catalogue has gained; harmless when repeated."""
        held = self._tables.get(table.name)
        if held is None:
            self._make_table(table)
        elif held.declaration != table:
            check_dim(self._path, TableEntry(table.name, 0, held.declaration.dim), table)
            held.declaration = table
        else:
            return
        self._sharing.announce(self._tables)

    def _make_table(self, table: TableDeclaration) -> None:
        rows = min(self._memory // row_bytes(table.dim) + 1, _SLOTS_MAX)
        entries = min(2 * self._memory // (table.dim * 4) + 1, _SLOTS_MAX)  # twice what the journal budget allows
        source = EntrySource(table.name, table.dim, self._durable, self._directory)
        made = self._tables[table.name] = Table(table, rows, entries, source)
        if self.pinned is not None:
            made.pin(self.pinned, 0)

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
        check_room(held, keys, self._memory, self.memory_bytes())
        journal = effective >= self._directory.bound
        label = self._directory.label_of(effective)
        if journal:
            self._directory.number_of(label)
        rows = held.apply(keys, deltas, label, arrival, journal=journal)
        self._touched += rows
        return rows

    def undo(self, void: EpochRange) -> int:
        """Take back what the epochs of `void` added, now and for good; the number of rows changed. 0 when repeated.

        A flush whose copying is under way is given up and due again: what this changes would have to be copied first.

        Raises:
            StateUnavailable: the journals do not reach back that far; nothing was changed.
        """
        directory = self._directory
        if void in directory.voids:
            return 0
        directory.check_state(void.first)
        labels = [label for label in directory.labels if label in void]
        if labels and self._flusher.give_up():
            self._pace.given_up()
        rows = sum(table.undo(void.first, void.last) for table in self._tables.values()) if labels else 0
        self._move_pin(void)
        directory.remove(labels)
        directory.voids = (*directory.voids, void)
        self._touched += rows
        return rows

    def keep_voids(self) -> None:
        """Make durable what was undone, at the cost of one small write: a start undoes it again in what was flushed.

        Before the first flush none are kept: there is nothing to undo them in, nor a manifest to say whose they are.

        Raises:
            StoreUnwritable: it is not durable yet; call again.
        """
        if self.flushed is not None and self._directory.voids != self._kept:
            self._durable.keep_voids(encode_voids(self._directory.voids))
            self._kept = self._directory.voids

    def publish(self, state: ReplicaState, *, serving: bool) -> None:
        """Tell readers in other processes the version vector that the rows contain, and whether they may be read."""
        self._sharing.publish(state, serving=serving)

    def reader_handle(self) -> ReaderHandle:
        """How another process of this machine attaches to the rows; see `local_store`."""
        return self._sharing.handle(self._tables)

    @property
    def flushed(self) -> ReplicaState | None:
        """State of the last durable flush, None before the first."""
        return self._flusher.flushed

    @property
    def recoverable(self) -> ReplicaState | None:
        """State that a start would find: that of the last flush, with the voids that are undone again."""
        flushed = self.flushed
        if flushed is None:
            return None
        return replace(flushed, voids=tuple(dict.fromkeys((*flushed.voids, *self._kept))))

    def flush_due(self, now_s: float) -> bool:
        """Whether it is time to flush, see `pace`; `now_s` is of a clock that only rises."""
        pressed = over_budget(self._tables, self._memory)
        return self._pace.due(now_s, busy=self._flusher.busy, touched=self._touched, pressed=pressed)

    @property
    def flushing(self) -> bool:
        """Whether a flush is under way, or has ended and was not polled yet."""
        return self._flusher.busy

    def begin_flush(self, state: ReplicaState) -> None:
        """Capture rows, journals and `state` as they are now; they become durable in the background, in one commit.

        Unless an undo comes while they are being copied: the flush is given up then, see `undo`.
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

    def checkpoint(self, folder: Path) -> None:
        """Make `folder` hold what was flushed last, as a store's folder of its own; while no flush is under way.

        Raises:
            StoreUnwritable: the folder cannot be written.
        """
        assert not self.flushing
        assert isinstance(self._durable, RocksDurable), "only what is on disk can be linked"
        self._durable.checkpoint(folder)

    def close(self) -> None:
        """Let a flush under way end and release the folder. What was not flushed is read from the lanes again."""
        try:
            self._settle(wait=True)
        finally:
            self._sharing.close()
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
