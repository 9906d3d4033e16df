"""From a lane record to a block that may be applied: decoded, of this model and region, its catalogue reached."""

import logging
from typing import Protocol

from ekko.schemas.blocks import LaneBlock
from ekko.schemas.codec import Codec, UnknownSchema
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Barrier
from ekko.schemas.errors import FormatError, GapError
from ekko.streams.log import Record

_log = logging.getLogger("ekko.store")

REACH_TIMEOUT_S = 0.2
"""One attempt to reach the catalogue offset that a block names; the record waits and it is tried again."""


class CatalogueView(Protocol):
    """What an applier needs of the catalogue."""

    @property
    def codec(self) -> Codec:
        """Knows the writer schemas read so far."""

    @property
    def end(self) -> int:
        """Offset just after the last record read."""

    @property
    def models(self) -> dict[str, ModelDeclaration]:
        """Live models by name."""

    def refresh(self, timeout_s: float = 10.0) -> int:
        """Read on to the end that the catalogue has now; raises ConnectionFailed."""

    def reach(self, offset: int, timeout_s: float = 10.0) -> None:
        """Read on until `end` is at least `offset`; raises ConnectionFailed."""


class LaneIntake:
    """Decides what a record of a model's lanes is.

    Args:
        incarnation, region_incarnation: a block of others is not ours, however its topic is called.
    """

    def __init__(self, catalogue: CatalogueView, incarnation: int, region_incarnation: int) -> None:
        self._catalogue = catalogue
        self._incarnation = incarnation
        self._region_incarnation = region_incarnation
        self.foreign = 0
        """Records that are none of ours and were skipped; a damaged one of ours shows as a gap in the seqs."""

    def block(self, record: Record) -> LaneBlock | None:
        """The block in a lane record; None for a record that is none of ours.

        Raises:
            GapError: another incarnation, or another shard's block.
            FormatTooNew: written by newer software.
            ConnectionFailed: the catalogue it names is not reached yet; come again with the same record.
        """
        message = self._decode(record)
        if message is None:
            return None
        if not isinstance(message, LaneBlock):
            self._skip(record, f"a {type(message).__name__} is no lane block")
            return None
        where = f"{record.partition.topic}[{record.partition.number}] offset {record.offset}"
        if message.incarnation != self._incarnation or message.region_incarnation != self._region_incarnation:
            raise GapError(
                f"{where}: block of incarnation {message.incarnation} in region incarnation "
                f"{message.region_incarnation}, but this store holds {self._incarnation} in {self._region_incarnation}",
                hint="a writer of a deleted model or region of the same name still runs: stop it",
            )
        if message.shard != record.partition.number:
            raise GapError(f"{where}: block of shard {message.shard} in partition {record.partition.number}")
        if message.catalogue > self._catalogue.end:
            self._catalogue.reach(message.catalogue, REACH_TIMEOUT_S)
        return message

    def barrier(self, record: Record) -> Barrier | None:
        """The barrier in a control record; None for what is none of ours. Raises FormatTooNew, ConnectionFailed."""
        message = self._decode(record)
        if isinstance(message, Barrier):
            # A barrier of an older model of the same name says nothing about this one.
            return message if message.incarnation == self._incarnation else None
        if message is not None:
            self._skip(record, f"a {type(message).__name__} is no barrier")
        return None

    def _decode(self, record: Record) -> object | None:
        codec = self._catalogue.codec
        message: object | None = None
        try:
            try:
                message = codec.decode(record.value)
            except UnknownSchema:
                self._catalogue.refresh(REACH_TIMEOUT_S)
                message = codec.decode(record.value)
        except FormatError as error:
            self._skip(record, error.message)
        return message

    def _skip(self, record: Record, reason: str) -> None:
        self.foreign += 1
        topic, number = record.partition
        _log.warning("%s[%d] offset %d is skipped: %s", topic, number, record.offset, reason)
