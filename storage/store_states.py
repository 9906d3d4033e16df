"""What a store keeps of past model states: how far back it can go, which states are withdrawn, which one is pinned."""

from collections.abc import Sequence
from pathlib import Path

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import EpochRange
from ekko.schemas.errors import MemoryExhausted
from ekko.storage.disk.durable import Durable
from ekko.storage.shared.sharing import Sharing
from ekko.storage.store_reads import StoreReads


class StoreStates(StoreReads):
    """The part of `store.Store` that withdraws, pins and gives up model states."""

    def __init__(
        self, path: Path, model: ModelDeclaration, shards: Sequence[int], memory_bytes: int, durable: Durable
    ) -> None:
        super().__init__(model)
        self._sharing = Sharing(path, model, tuple(shards))
        self._memory = memory_bytes
        self._durable = durable

    def memory_bytes(self) -> int:
        """Bytes of rows, index, journals and flush buffers in use."""
        return sum(table.memory_bytes() for table in list(self._tables.values())) + self._durable.memory_bytes()

    def raise_bound(self, state: int) -> None:
        """Give up undoing states before `state`, and forget their journals; it stops at a pinned state."""
        if state > self._directory.bound:
            self._directory.raise_bound(state)
            self._keep_to_bound()

    def withdraw(self, ranges: Sequence[EpochRange]) -> None:
        """Withdraw model states: the journals on both sides of each become one. Voids known so far must be undone.

        Raises:
            StateUnavailable: one of them is pinned; nothing was changed.
        """
        for source, target in self._directory.withdraw(ranges):
            for table in self._tables.values():
                table.unite(source, target)
        self._keep_to_bound()

    def pin(self, state: int) -> None:
        """Keep `state` readable at nearly the speed of the current rows, and from being given up, until `unpin`.

        One state at a time: another one that was pinned is so no more. A void that spans the pinned state leaves its
        own beginning pinned instead. It is durable with the next flush.

        Raises:
            StateUnavailable: it is withdrawn or below the bound; nothing was changed.
            MemoryExhausted: what of it stands on disk only does not fit into memory; nothing is pinned then.
        """
        if state != self.pinned:
            self._directory.check_state(state)
            self._pin(state)

    def unpin(self) -> None:
        """Pin no state any more; harmless when repeated."""
        self._pin(None)

    def _pin(self, state: int | None) -> None:
        self._directory.pinned = None
        for table in self._tables.values():
            table.pinned.rename(None)
        if state is None:
            return
        try:
            for table in self._tables.values():
                table.pin(state, self._memory - self.memory_bytes())
        except MemoryExhausted:
            self._pin(None)
            raise
        self._directory.pinned = state

    def _move_pin(self, void: EpochRange) -> None:
        """What was the pinned state within a void is now its beginning."""
        pinned = self._directory.pinned
        if pinned is not None and pinned in void and pinned != void.first:
            self._directory.pinned = void.first
            for table in self._tables.values():
                table.pinned.rename(void.first)

    def _keep_to_bound(self) -> None:
        self._sharing.limit(self._directory)  # told before the journals go
        for table in self._tables.values():
            table.drop_below(self._directory.bound)
