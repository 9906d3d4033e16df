"""What becomes of a source record: a decision that is a function of the log, never of arrival (DESIGN, law 7)."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ekko.schemas.blocks import DeltaBlock, Purpose
from ekko.schemas.codec import UnknownSchema
from ekko.schemas.declarations import ModelDeclaration, TableDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import ConfigurationError, FormatError
from ekko.schemas.hashing import shard_of
from ekko.streams.log import Record


class CatalogueView(Protocol):
    """What deciding needs of the catalogue."""

    @property
    def end(self) -> int:
        """Catalogue offset (end) read so far."""

    def decode(self, value: bytes | None) -> object:
        """See `Codec.decode`, with the writer schemas read so far."""

    def model_as_of(self, name: str, offset: int) -> ModelDeclaration | None:
        """The model as of a catalogue offset that has been read."""

    def existed_at(self, offset: int, timestamp_ms: int) -> bool:
        """Whether the catalogue provably reached `offset` before this moment, by the log's own time stamps."""


class Reason(StrEnum):
    """Why a source record was refused: stable codes."""

    BAD_FORMAT = "bad_format"
    UNKNOWN_SCHEMA = "unknown_schema"
    WRONG_KIND = "wrong_kind"
    WRONG_INCARNATION = "wrong_incarnation"
    WRONG_SHARD = "wrong_shard"
    FUTURE_CATALOGUE = "future_catalogue"
    UNKNOWN_TABLE = "unknown_table"
    WRONG_DIM = "wrong_dim"
    TOO_MANY_ROWS = "too_many_rows"
    FOREIGN_KEYS = "foreign_keys"
    DENIED = "denied"
    OLD_GENERATION = "old_generation"
    FUTURE_GENERATION = "future_generation"
    BAD_EFFECTIVE = "bad_effective"


@dataclass(frozen=True, slots=True)
class Refused:
    """The record goes to the rejected topic."""

    reason: Reason
    detail: str
    trainer: str = ""
    table: str = ""


@dataclass(frozen=True, slots=True)
class Undecided:
    """The record names a catalogue offset (None: a writer schema) that may not have been there; a barrier decides."""

    catalogue: int | None
    trainer: str = ""
    table: str = ""

    def refusal(self) -> Refused:
        """What it becomes when the barrier after next does not know the offset or schema either."""
        if self.catalogue is None:
            return Refused(Reason.UNKNOWN_SCHEMA, "its writer schema is not in the catalogue")
        detail = f"it names catalogue offset {self.catalogue}, beyond the end when it was written"
        return Refused(Reason.FUTURE_CATALOGUE, detail, self.trainer, self.table)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A block whose deltas count, its table, and the epoch to which they belong for undo."""

    block: DeltaBlock = field(repr=False)
    table: TableDeclaration
    effective: int


@dataclass(frozen=True, slots=True)
class OpenEpoch:
    """What was in force in a stretch of the source log: what its barrier said.

    Attributes:
        catalogue_end: end of the catalogue when its barrier was written; for epoch 0, just after the model's creation.
    """

    epoch: int
    generation: int
    catalogue_end: int
    denied: frozenset[str] = frozenset()

    @classmethod
    def of(cls, barrier: Barrier) -> "OpenEpoch":
        """The epoch that a barrier opens."""
        return cls(barrier.epoch, barrier.generation, barrier.catalogue_end, frozenset(barrier.denied))


class Admission:
    """Decides about the records of one shard."""

    def __init__(self, model: ModelDeclaration, shard: int, catalogue: CatalogueView) -> None:
        assert model.incarnation is not None
        self._name, self._incarnation = model.name, model.incarnation
        self._shards, self._shard = model.shards, shard
        self._catalogue = catalogue

    @property
    def first(self) -> OpenEpoch:
        """Epoch 0, which no barrier opens."""
        return OpenEpoch(0, 0, self._incarnation + 1)

    def judge(
        self, record: Record, epoch: OpenEpoch, catalogue_end: int | None = None
    ) -> Barrier | Admitted | Refused | Undecided:
        """Decide about a record that arrived in `epoch`.

        Args:
            catalogue_end: what a barrier tells that the catalogue had reached when the record was written, or soon
                after; None: no more than the one that opened `epoch`.

        Raises:
            FormatTooNew: it needs newer software; the shard must halt before it.
        """
        try:
            message = self._catalogue.decode(record.value)
        except UnknownSchema:
            return Undecided(None)
        except FormatError as error:
            return Refused(Reason.BAD_FORMAT, error.message)
        if isinstance(message, Barrier):
            if message.incarnation == self._incarnation:
                return message
            return Refused(Reason.WRONG_INCARNATION, self._foreign(message.incarnation))
        if isinstance(message, DeltaBlock):
            known = epoch.catalogue_end if catalogue_end is None else catalogue_end
            return self._judge_block(message, record.timestamp_ms, epoch, known)
        return Refused(Reason.WRONG_KIND, f"a {type(message).__name__} is not for the source log")

    def _foreign(self, incarnation: int) -> str:
        return f"written for incarnation {incarnation} of the model, this is {self._incarnation}"

    def _judge_block(
        self, block: DeltaBlock, timestamp_ms: int, epoch: OpenEpoch, known: int
    ) -> Admitted | Refused | Undecided:
        try:
            self._check_origin(block, epoch)
            # Tables are only ever added, so a block may be judged by the newer of the two offsets that the log names.
            as_of = max(block.catalogue, epoch.catalogue_end)
            # To have read that far proves nothing: a slow reader has read more than there was at the time.
            honest = as_of <= known or self._catalogue.existed_at(as_of, timestamp_ms)
            if as_of > self._catalogue.end or not honest:
                return Undecided(as_of, block.trainer, block.table)
            table = self._checked_table(block, self._catalogue.model_as_of(self._name, as_of))
        except _Fault as fault:
            return Refused(fault.reason, fault.detail, block.trainer, block.table)
        return Admitted(block, table, epoch.epoch if block.effective is None else block.effective)

    def _check_origin(self, block: DeltaBlock, epoch: OpenEpoch) -> None:
        if block.incarnation != self._incarnation:
            raise _Fault(Reason.WRONG_INCARNATION, self._foreign(block.incarnation))
        if block.shard != self._shard:
            raise _Fault(Reason.WRONG_SHARD, f"written for shard {block.shard}, this is {self._shard}")
        if block.purpose is Purpose.TRAIN and block.trainer in epoch.denied:
            raise _Fault(Reason.DENIED, f"trainer {block.trainer!r} is on the deny list")
        # A retraction takes back what was accepted, whatever was rolled back since.
        if block.generation < epoch.generation and block.purpose is not Purpose.RETRACT:
            detail = f"learnt in generation {block.generation}, this is {epoch.generation}"
            raise _Fault(Reason.OLD_GENERATION, detail)
        if block.generation > epoch.generation:
            detail = f"it names generation {block.generation}, this is {epoch.generation}"
            raise _Fault(Reason.FUTURE_GENERATION, detail)
        if block.effective is not None:
            _check_effective(block.effective, block.purpose, epoch)

    def _checked_table(self, block: DeltaBlock, model: ModelDeclaration | None) -> TableDeclaration:
        if model is None or model.incarnation != self._incarnation:
            detail = f"model {self._name} does not exist as of catalogue offset {block.catalogue}"
            raise _Fault(Reason.UNKNOWN_TABLE, detail)
        try:
            table = model.table(block.table)
        except ConfigurationError as error:
            raise _Fault(Reason.UNKNOWN_TABLE, f"{error.message}; {error.hint}") from error
        rows, dim = block.deltas.shape
        if dim != table.dim:
            raise _Fault(Reason.WRONG_DIM, f"rows of dim {dim}, the table has {table.dim}")
        if rows > model.max_rows_a_block:
            detail = f"{rows} rows, the model allows {model.max_rows_a_block} a block"
            raise _Fault(Reason.TOO_MANY_ROWS, detail)
        foreign = int((shard_of(block.keys, self._shards) != self._shard).sum())
        if foreign:
            raise _Fault(Reason.FOREIGN_KEYS, f"{foreign} of {rows} keys belong to other shards")
        return table


class _Fault(Exception):
    """Why a block is refused."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def _check_effective(effective: int, purpose: Purpose, epoch: OpenEpoch) -> None:
    if purpose is not Purpose.RETRACT:
        raise _Fault(Reason.BAD_EFFECTIVE, f"only a retraction names an effective epoch, this is for {purpose}")
    if not 0 <= effective <= epoch.epoch:
        raise _Fault(Reason.BAD_EFFECTIVE, f"effective epoch {effective} is not in 0..{epoch.epoch}")
