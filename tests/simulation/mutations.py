"""Bugs to be planted, one at a time: a check that catches none of them proves nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.epochs import EpochRange, Verdict
from ekko.storage.engine.table import Table
from ekko.storage.store import Store
from ekko.streams.applier.instructions import Instructions
from ekko.streams.applier.readers import LaneReaders
from ekko.streams.catalogue import PARTITION
from ekko.streams.fanout.admission import Admission
from ekko.streams.fanout.intake import Intake
from ekko.streams.fanout.mirror import _Copier
from ekko.streams.fanout.pending import Pending
from ekko.streams.fanout.seeding import ShardSeeding
from ekko.streams.fanout.sequencer import Draft, Sequencer
from ekko.streams.fanout.shard import ShardFanout
from ekko.streams.log import Record
from ekko.streams.manager.verdicts import Probation
from ekko.streams.memory.broker import MemoryBroker, Outcome, PartitionLog
from ekko.streams.operations.reinstate import Reinstatement
from ekko.streams.operations.retract import Retraction
from ekko.streams.operations.sums import Sums
from ekko.streams.publisher import Publisher
from ekko.streams.publisher.queue import QueueSender
from tests.simulation.machines import LEAST_PENDING_BYTES
from tests.simulation.policy_mutations import POLICY_MUTATIONS
from tests.simulation.scenario import Scenario


@contextmanager
def _instead(owner: type, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    with patch.object(owner, name, replacement):
        yield


def takeover_forgets_what_was_sent() -> Any:
    """A fan-out that takes over sends everything unsettled again."""
    return _instead(ShardFanout, "subtract_sent", lambda *_: None)


def settled_runs_ahead() -> Any:
    """A record says that an epoch is settled as soon as its marker is sent, while rows of it still wait."""
    original = Sequencer._block

    def block(self: Sequencer, draft: Draft, intake: Intake, *rest: Any) -> LaneBlock:
        return replace(original(self, draft, intake, *rest), settled=intake.settled(self._marked))

    return _instead(Sequencer, "_block", block)


def old_generations_pass() -> Any:
    """Blocks learnt from rolled-back parameters are let in."""
    original = Admission._check_origin
    return _instead(
        Admission,
        "_check_origin",
        lambda self, block, epoch: original(self, replace(block, generation=epoch.generation), epoch),
    )


def undo_is_skipped() -> Any:
    """A store takes a void for undone without undoing it."""

    def undo(self: Store, void: EpochRange) -> int:
        self._directory.voids = (*self._directory.voids, void)
        return 0

    return _instead(Store, "undo", undo)


def late_deltas_miss_the_journals() -> Any:
    """A late delta of an older epoch goes to the row only, not into later journal entries."""
    original = Table.apply
    return _instead(
        Table,
        "apply",
        lambda self, keys, deltas, label, arrival, *, journal: original(
            self, keys, deltas, max(label, arrival), arrival, journal=journal
        ),
    )


def rows_and_positions_part() -> Any:
    """A flush stores the positions of the flush before it: a crash then applies records twice."""
    original = Store.begin_flush
    previous: dict[int, Any] = {}

    def begin_flush(self: Store, state: Any) -> None:
        original(self, previous.get(id(self), self.state))
        previous[id(self)] = state

    return _instead(Store, "begin_flush", begin_flush)


def journals_are_never_united() -> Any:
    """A store keeps a journal an epoch for ever, whatever is withdrawn."""
    return _instead(Store, "withdraw", lambda *_: None)


def states_are_given_up_unasked() -> Any:
    """A store forgets the journals of old states that nobody has withdrawn."""
    original = Store.begin_flush

    def begin_flush(self: Store, state: Any) -> None:
        self.raise_bound(self.bound + 1 if state.complete > self.bound + 6 else self.bound)
        original(self, state)

    return _instead(Store, "begin_flush", begin_flush)


def catch_up_skips_a_record() -> Any:
    """An applier that starts loses the first record of what it reads."""
    original = LaneReaders.assign
    return _instead(
        LaneReaders,
        "assign",
        lambda self, positions: original(
            self, {at: offset + (offset > 0 and at != self.control) for at, offset in positions.items()}
        ),
    )


def zombies_write() -> Any:
    """Older writers of an identity are not fenced."""
    return _instead(MemoryBroker, "is_fenced", lambda *_: False)


def aborted_records_are_read() -> Any:
    """Readers see uncommitted data."""
    original = PartitionLog.committed

    def committed(self: PartitionLog, start: int, end: int) -> Iterator[Any]:
        for entry in self.entries[start:end]:
            if entry is not None and entry.transaction is not None and entry.transaction.outcome is Outcome.ABORTED:
                entry.transaction.outcome = Outcome.COMMITTED
        return original(self, start, end)

    return _instead(PartitionLog, "committed", committed)


def voids_are_not_learnt() -> Any:
    """An applier forgets the voids that a barrier carries."""
    return _instead(Instructions, "learn", lambda *_: None)


def unknown_deliveries_are_counted() -> Any:
    """A publisher takes a delivery of unknown fate for acknowledged."""
    original: Callable[..., None] = QueueSender._delivered
    return _instead(QueueSender, "_delivered", lambda self, *rest: original(self, *rest[:-1], None))


def the_last_batch_is_forgotten() -> Any:
    """A trainer that starts again is told the position before its last one, and publishes that batch once more."""
    original = Publisher.last_position

    def last_position(self: Publisher, timeout_s: float = 60.0) -> bytes:
        return b"%d" % max(0, int(original(self, timeout_s) or b"0") - 1)

    return _instead(Publisher, "last_position", last_position)


def seeds_leave_out_bulk() -> Any:
    """A founded region's lanes do not tell what its seed holds of the donor's bulk."""
    original = ShardSeeding._copy_lane

    def copy_lane(self: ShardSeeding, lane: Lane, writer: Any) -> None:
        if lane is Lane.EXPRESS:
            original(self, lane, writer)

    return _instead(ShardSeeding, "_copy_lane", copy_lane)


def a_mirrored_catalogue_has_a_hole() -> Any:
    """A region's own cluster never hears of the model: the record that declares it is not copied."""
    original = _Copier._send

    def send(self: _Copier, record: Record) -> None:
        if record.partition == PARTITION and (record.key or b"").startswith(b"model:"):
            self._positions[record.partition] = record.offset + 1
        else:
            original(self, record)

    return _instead(_Copier, "_send", send)


def what_was_forgotten_stays_forgotten() -> Any:
    """Bulk that was forgotten for want of memory is computed again and never sent."""
    return _instead(Pending, "adopt", lambda *_: None)


def a_retraction_leaves_a_part() -> Any:
    """A retraction does not take back all that it has found."""
    original = Retraction.parts
    return _instead(Retraction, "parts", lambda self, voids: list(original(self, voids))[1:])


def a_reinstatement_leaves_a_part() -> Any:
    """A reinstatement does not give back all that it has found."""
    original = Reinstatement.parts
    return _instead(Reinstatement, "parts", lambda self, voids: list(original(self, voids))[1:])


def a_reinstatement_forgets_what_it_gave_back() -> Any:
    """A reinstatement that is run again publishes all of it once more."""
    original = Reinstatement.parts

    def parts(self: Reinstatement, voids: tuple[EpochRange, ...]) -> Any:
        self._given = Sums()
        return original(self, voids)

    return _instead(Reinstatement, "parts", parts)


def what_others_gave_back_is_given_back_by_two() -> Any:
    """A reinstatement does not tell on whose behalf it gives back what a later rollback has taken from another one."""
    original = Reinstatement.parts
    return _instead(
        Reinstatement, "parts", lambda self, voids: [replace(part, operation="") for part in original(self, voids)]
    )


def states_are_healthy_at_once() -> Any:
    """Nobody waits until a state is complete in all regions."""
    return _instead(
        Probation,
        "passed",
        lambda _self, states, *_: [
            replace(state, verdict=Verdict.HEALTHY) for state in states if state.verdict is Verdict.CANDIDATE
        ],
    )


def _everywhere(_: Scenario) -> bool:
    return True


def _commanded(scenario: Scenario) -> bool:
    return scenario.commands > 0


MUTATIONS: dict[Callable[[], Any], Callable[[Scenario], bool]] = {
    takeover_forgets_what_was_sent: _everywhere,
    settled_runs_ahead: _everywhere,
    old_generations_pass: _everywhere,
    undo_is_skipped: _everywhere,
    late_deltas_miss_the_journals: _everywhere,
    rows_and_positions_part: _everywhere,
    journals_are_never_united: lambda scenario: scenario.withdrawals > 0,
    states_are_given_up_unasked: _everywhere,
    catch_up_skips_a_record: _everywhere,
    zombies_write: _everywhere,
    aborted_records_are_read: _everywhere,
    voids_are_not_learnt: _everywhere,
    unknown_deliveries_are_counted: _everywhere,
    the_last_batch_is_forgotten: lambda scenario: any(scenario.trainers),
    a_mirrored_catalogue_has_a_hole: lambda scenario: scenario.own_brokers,
    what_was_forgotten_stays_forgotten: lambda scenario: scenario.pending_bytes < LEAST_PENDING_BYTES,
    seeds_leave_out_bulk: lambda scenario: scenario.founds,
    a_retraction_leaves_a_part: _commanded,
    a_reinstatement_leaves_a_part: _commanded,
    a_reinstatement_forgets_what_it_gave_back: _commanded,
    what_others_gave_back_is_given_back_by_two: _commanded,
    states_are_healthy_at_once: _everywhere,
    **POLICY_MUTATIONS,
}
"""Each with the worlds in which it can show at all: no others need to be lived through."""
