"""What barriers ask of a store: voids to undo, a state to pin and perhaps to serve, states to withdraw."""

import logging
from collections.abc import Callable

from ekko.schemas.blocks import LaneBlock
from ekko.schemas.epochs import Barrier, EpochRange, without_state
from ekko.schemas.errors import MemoryExhausted, StateUnavailable
from ekko.schemas.replicas import Undone
from ekko.storage.store import Store

_log = logging.getLogger("ekko.store")

_TOLD = 16
"""Voids whose rows are told; the audit trail keeps them from then on."""


class Instructions:
    """Learns barriers, in whatever order they come, and carries out what they say; one thread.

    Args:
        model: its name, for the log.
        clock: seconds since 1970, for when a void was undone.
        witness: a state that this replica pins and serves whatever the barriers say; None: it does what they say.

    Attributes:
        served: the pinned state that readers get in place of the live rows; None for the live ones.
        undone: the last voids undone since the start, oldest first; replaced, not changed.
    """

    def __init__(self, store: Store, model: str, clock: Callable[[], float], *, witness: int | None = None) -> None:
        self._witness = witness
        self.served = witness
        self.undone: tuple[Undone, ...] = ()
        self._store, self._model, self._clock = store, model, clock
        self._newest = Barrier(store.state.incarnation, 0, 0, 0)
        self._carried_out = self._newest
        self._voids: list[EpochRange] = []
        self._withdrawn: frozenset[EpochRange] = frozenset()

    def learn(self, barrier: Barrier) -> None:
        """Take note; nothing is changed yet."""
        known = {*self._store.voids, *self._voids}
        self._voids += [void for void in barrier.voids if void not in known]
        self._withdrawn |= {*barrier.withdrawn}
        if barrier.epoch > self._newest.epoch:
            self._newest = barrier

    def refuse_mixed(self, block: LaneBlock) -> None:
        """Look that a block does not sum over the state that a witness keeps, which others may have given up.

        Raises:
            StateUnavailable: it does, and this replica was not complete at that state before.
        """
        newest = block.arrival if block.newest_arrival is None else block.newest_arrival
        if self._witness is not None and block.arrival <= block.effective < self._witness <= newest:
            raise StateUnavailable(
                f"state {self._witness} cannot be told: it is withdrawn, and the lanes of shard {block.shard} hold "
                f"sums over epochs {block.effective} to {newest} (seq {block.seq})",
                hint="restore a snapshot that was complete at the state, or choose one that `ekko states` lists",
            )

    def carry_out(self) -> None:
        """Undo, then pin, then withdraw: what is undone must not have been united, and a pin holds off the rest.

        Raises:
            StateUnavailable: a void reaches further back than the journals.
            MemoryExhausted: there is no room to undo it.
        """
        for void in self._voids:
            _log.info("%s: undoes epochs %d to %d", self._model, void.first, void.last)
            rows = self._store.undo(void)
            _log.info("%s: undid epochs %d to %d, %d rows changed", self._model, void.first, void.last, rows)
            done = Undone(self._model, self._newest.incarnation, void, rows, int(self._clock() * 1e6))
            self.undone = (*self.undone[1 - _TOLD :], done)
        self._voids.clear()
        if self._carried_out is not self._newest:
            self._follow_pin()
        if self._withdrawn:
            self._store.withdraw(tuple(without_state(self._withdrawn, self._witness)))
            self._withdrawn = frozenset()
        self._carried_out = self._newest

    def _follow_pin(self) -> None:
        """A state that cannot be pinned here is refused to readers, who find it at another replica."""
        if self._witness is not None and self._store.pinned is not None:
            # A void that spans the state has left its own beginning pinned, which is what the state was.
            self._witness = self._store.pinned
        pinned = self._newest.pinned if self._witness is None else self._witness
        try:
            if pinned is None:
                self._store.unpin()
            else:
                self._store.pin(pinned)
        except (StateUnavailable, MemoryExhausted) as error:
            if pinned != self._carried_out.pinned:
                _log.error("%s: state %s cannot be pinned here: %s", self._model, pinned, error)
        self.served = self._newest.served if self._witness is None else self._witness
