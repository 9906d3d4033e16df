"""One shard's order over both lanes: which seqs are applied, whether any is missing, how far the shard is complete.

Pure. A fan-out numbers the records of a shard 1, 2, 3 ... over both lanes (`seq`), and each record names the seq before
it in its own lane (`previous`). So a lane proves by itself that nothing was lost from it, and both together that no seq
is missing: lanes hand out rising seqs, hence a seq that both lanes have passed can never come any more.
"""

from bisect import bisect_left
from dataclasses import dataclass

from ekko.schemas.blocks import Lane, LaneBlock
from ekko.schemas.errors import GapError
from ekko.schemas.replicas import LanePosition, SeqRun, ShardPosition

_HINT = "the shard stays as it is: `ekko restore` a snapshot of another replica, or `ekko rewind` to one of its own"
_START = ShardPosition()


@dataclass(slots=True)
class _Lane:
    """The last record applied from one lane."""

    seq: int
    leader_epoch: int


class LaneOrder:
    """Contiguity of one shard over both lanes, from a stored `ShardPosition` on.

    Attributes:
        contiguous: every seq up to it is applied.
        complete: the last model state at which the shard is complete: the highest settled epoch among the records up
            to `contiguous`.
        generation: of the last barrier applied.
    """

    def __init__(self, name: str, position: ShardPosition = _START) -> None:
        self.name = name
        self.contiguous = position.contiguous
        self.complete = position.complete
        self.generation = position.generation
        self._ahead = list(position.ahead)
        self._lanes = {
            Lane.EXPRESS: _Lane(position.express.seq, position.express.leader_epoch),
            Lane.BULK: _Lane(position.bulk.seq, position.bulk.leader_epoch),
        }

    def accept(self, lane: Lane, block: LaneBlock, offset: int, leader_epoch: int = -1) -> None:
        """Take the next record of `lane`, read at `offset`; state changes only where it returns.

        Raises:
            GapError: a record of this lane is missing or repeated, a seq can never come any more, or the log was cut
                and written anew by an older leader.
        """
        last = self._lanes[lane]
        where = f"{self.name}, {lane} offset {offset}"
        if 0 <= leader_epoch < last.leader_epoch:
            raise GapError(f"{where}: leader epoch went back from {last.leader_epoch} to {leader_epoch}", hint=_HINT)
        if block.previous != last.seq:
            raise GapError(
                f"{where}: seq {block.seq} follows seq {block.previous} of its lane, but {last.seq} was applied last",
                hint=_HINT,
            )
        if block.seq <= last.seq or self._has(block.seq):
            raise GapError(f"{where}: seq {block.seq} again, applied up to {self.contiguous}", hint=_HINT)
        self._refuse_missing(lane, block.seq, where)
        last.seq = block.seq
        last.leader_epoch = max(last.leader_epoch, leader_epoch)
        self._insert(block.seq, block.settled.epoch)
        if block.barrier is not None:
            self.generation = max(self.generation, block.barrier.generation)

    def position(self, express_offset: int, bulk_offset: int) -> ShardPosition:
        """The shard's place, to be stored with the rows; the offsets are the next ones to read."""
        express, bulk = self._lanes[Lane.EXPRESS], self._lanes[Lane.BULK]
        return ShardPosition(
            express=LanePosition(express_offset, express.seq, express.leader_epoch),
            bulk=LanePosition(bulk_offset, bulk.seq, bulk.leader_epoch),
            contiguous=self.contiguous,
            ahead=tuple(self._ahead),
            complete=self.complete,
            generation=self.generation,
        )

    def _has(self, seq: int) -> bool:
        if seq <= self.contiguous:
            return True
        index = bisect_left(self._ahead, seq, key=lambda run: run.last)
        return index < len(self._ahead) and self._ahead[index].first <= seq

    def _refuse_missing(self, lane: Lane, seq: int, where: str) -> None:
        """Refuse a seq after which both lanes have passed the first missing one."""
        other = self._lanes[Lane.BULK if lane is Lane.EXPRESS else Lane.EXPRESS].seq
        missing = self.contiguous + 1
        if missing < seq and missing < other:
            raise GapError(
                f"{where}: seq {missing} is missing, yet its lane has reached {seq} and the other lane {other}",
                hint=_HINT,
            )

    def _insert(self, seq: int, settled: int) -> None:
        """Add one applied seq, join it with its neighbours, and move the contiguous prefix over what follows it."""
        index = bisect_left(self._ahead, seq, key=lambda run: run.first)
        first = last = seq
        if index < len(self._ahead) and self._ahead[index].first == seq + 1:
            after = self._ahead.pop(index)
            last, settled = after.last, max(settled, after.settled)
        if index and self._ahead[index - 1].last == seq - 1:
            index -= 1
            before = self._ahead.pop(index)
            first, settled = before.first, max(settled, before.settled)
        if first == self.contiguous + 1:
            self.contiguous = last
            self.complete = max(self.complete, settled)
        else:
            self._ahead.insert(index, SeqRun(first, last, settled))
