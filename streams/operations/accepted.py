"""The blocks of a source log that were accepted, in log order: decided as every fan-out decides (DESIGN, law 7)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ekko.schemas.blocks import DeltaBlock
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import ModelState, Settled
from ekko.schemas.errors import NotReady
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout.admission import Admission, Admitted, OpenEpoch, Refused
from ekko.streams.fanout.intake import Intake
from ekko.streams.log import Cluster, Partition, Record
from ekko.streams.manager.history import source_partitions

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Accepted:
    """A block whose deltas count, or counted until their epoch was voided.

    Attributes:
        arrival, effective: epoch in which it arrived, and to which its deltas belong for undo.
    """

    block: DeltaBlock
    table: TableDeclaration
    arrival: int
    effective: int


Take = Callable[[Accepted], None]


class _Stretch(NamedTuple):
    """What of a shard is read: from a state (None: the beginning) to an offset."""

    partition: Partition
    start: ModelState | None
    end: int


class _AcceptedIntake(Intake):
    """An intake that hands on whole blocks, those of void epochs too."""

    def __init__(self, admission: Admission, take: Take) -> None:
        super().__init__(admission)
        self._take = take

    def _decided(self, verdict: Admitted | Refused, record: Record, epoch: OpenEpoch) -> None:
        del record
        if isinstance(verdict, Admitted) and len(verdict.block.keys):
            self._take(Accepted(verdict.block, verdict.table, epoch.epoch, verdict.effective))


def read_accepted(
    cluster: Cluster,
    catalogue: SharedCatalogue,
    model: ModelDeclaration,
    start: ModelState | None,
    take: Take,
    *,
    ends: Sequence[int] | None = None,
    timeout_s: float = 60.0,
) -> None:
    """Hand every accepted block from state `start` (None: the beginning) on to `take`, shard by shard.

    Args:
        ends: offset in every shard up to which all is read, see `marks`; None: what can be read at present, which may
            lack what others' open transactions hide.

    Raises:
        GapError: retention has passed the start; nothing can be concluded.
        NotReady: blocks at the end wait for the next barrier to be decided about, or nothing came for `timeout_s`.
    """
    catalogue.refresh(timeout_s)
    for partition in source_partitions(model):
        intake = _AcceptedIntake(Admission(model, partition.number, catalogue), take)
        end = cluster.bounds([partition])[partition].end if ends is None else ends[partition.number]
        _read_shard(cluster, intake, _Stretch(partition, start, end), timeout_s)
        catalogue.refresh(timeout_s)
        intake.reconsider(catalogue.end)
        if intake.held:
            raise NotReady(
                f"{partition.topic}[{partition.number}]: {intake.held} block(s) wait for a barrier to be decided about",
                hint="try again after the next two barriers",
            )


def _read_shard(cluster: Cluster, intake: Intake, stretch: _Stretch, timeout_s: float) -> None:
    partition, start, end = stretch
    offset = 0 if start is None else start.offsets[partition.number]
    reader = cluster.reader()
    waited_s = 0.0  # counted in empty polls, so that simulated time works too
    try:
        reader.assign({partition: offset})
        while reader.position(partition) < end:
            records = reader.poll(_POLL_S)
            waited_s = 0.0 if records else waited_s + _POLL_S
            if waited_s > timeout_s:
                raise NotReady(
                    f"{partition.topic}[{partition.number}] was not read to {end} in {timeout_s:g} s",
                    hint="somebody's transaction may be open for long, or the broker away: try again",
                )
            for record in records:
                if start is not None and record.offset == offset:
                    intake.start_at(record, Settled(offset + 1, start.epoch, start.generation))
                else:
                    intake.read(record)
    finally:
        reader.close()
