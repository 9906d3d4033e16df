"""The exclusive right to write one model's barriers and states."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import ModelState
from ekko.schemas.signals import AuditEntry
from ekko.streams.log import Cluster, Output, Partition, TransactionalWriter
from ekko.streams.manager.barriers import Amendment, following
from ekko.streams.manager.history import (
    CONTROL_KEY,
    Decoder,
    History,
    is_current,
    read_history,
    source_partitions,
    state_of,
)
from ekko.streams.manager.verdicts import after_barrier


class Tenure:
    """Whoever took it last has it: taking it fences every earlier holder at once, and reads back what they committed.

    Args:
        known: read shortly before; it is read again only if something was written since.

    Attributes:
        barrier: the last committed barrier, or the beginning.
        states: published states by epoch.

    Raises:
        GapError, FormatTooNew, TimeoutError: see `read_history`; nothing was written.
        ConnectionFailed: no broker answers.
    """

    def __init__(
        self, cluster: Cluster, codec: Decoder, model: ModelDeclaration, now_s: float, known: History | None = None
    ) -> None:
        assert model.incarnation is not None
        self.model = model
        self._writer: TransactionalWriter = cluster.transactional_writer(
            topics.manager_transactional_id(model.name, model.incarnation)
        )
        try:
            current = known is not None and is_current(cluster, known)
            history = known if known is not None and current else read_history(cluster, codec, model)
            self.barrier = history.barrier
            self.states = dict(history.states)
            self._waiting: list[ModelState] = list(history.unpublished)
            self._follow_barrier(now_s)
        except BaseException:
            self._writer.close()
            raise

    def write_barrier(
        self, catalogue_end: int, now_s: float, amend: Amendment | None = None, entry: AuditEntry | None = None
    ) -> ModelState:
        """Close the epoch in every shard in one transaction, then publish the state it opens.

        Args:
            catalogue_end: the catalogue's end, read after the last barrier was committed.
            now_s: seconds since 1970.
            amend: what the barrier changes.
            entry: written to the audit trail in the same transaction, with the barrier's epoch and generation.

        Raises:
            Fenced: somebody else holds the tenure now.
            CommitUncertain: what was being written may or may not be there; take the tenure anew.
            TransactionAborted: what was being written is not there. These three may also come of the states, which are
                written before and after: the barrier is there for certain if `barrier` is a new one, and states that
                were not written wait for the next call, or for who takes the tenure next.
            StateUnavailable: `amend` names a state to which the model cannot return.
        """
        self._publish_waiting()
        barrier = following(self.barrier, catalogue_end, int(now_s * 1e6), amend)
        value = encode(barrier)
        outputs = [Output(partition, value) for partition in source_partitions(self.model)]
        outputs.append(Output(Partition(topics.control(self.model.name), 0), value, CONTROL_KEY))
        if entry is not None:
            details = entry.details | {"epoch": str(barrier.epoch), "generation": str(barrier.generation)}
            written = encode(replace(entry, details=details))
            outputs.append(Output(Partition(topics.audit(self.model.name), 0), written))
        offsets = self._writer.transact(outputs)
        self.barrier = barrier
        state = state_of(self.model, barrier, tuple(offsets[: self.model.shards]))
        self._waiting.append(state)
        self._follow_barrier(now_s)
        return state

    def write_states(self, changed: Sequence[ModelState]) -> None:
        """Publish states with new verdicts; raises as `write_barrier`."""
        self._waiting.extend(changed)
        self._publish_waiting()

    def write_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Add to the audit trail; raises as `write_barrier`."""
        partition = Partition(topics.audit(self.model.name), 0)
        self._writer.transact([Output(partition, encode(entry)) for entry in entries])

    def forget(self, epochs: Iterable[int]) -> None:
        """Delete the records of these states; raises as `write_barrier`."""
        gone = sorted(epochs)
        if gone:
            partition = Partition(topics.states(self.model.name), 0)
            self._writer.transact([Output(partition, None, b"%d" % epoch) for epoch in gone])
            for epoch in gone:
                del self.states[epoch]

    def close(self) -> None:
        """Let go of the writer; the tenure stays with nobody until it is taken."""
        self._writer.close()

    def _follow_barrier(self, now_s: float) -> None:
        known = self.states | {state.epoch: state for state in self._waiting}
        self._waiting.extend(after_barrier(self.barrier, known.values(), int(now_s * 1e6)))
        self._publish_waiting()

    def _publish_waiting(self) -> None:
        """Write what waits; what an aborted transaction leaves waits for the next call."""
        if not self._waiting:
            return
        partition = Partition(topics.states(self.model.name), 0)
        newest = {state.epoch: state for state in self._waiting}
        self._writer.transact([Output(partition, encode(state), b"%d" % epoch) for epoch, state in newest.items()])
        self.states.update(newest)
        self._waiting.clear()
