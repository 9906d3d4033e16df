"""What stands last under each key of a compacted topic: members, shares, fan-out states."""

from collections.abc import Iterable
from typing import TypeVar

from ekko.schemas.errors import FormatError
from ekko.streams.log import Record
from ekko.streams.manager.history import Decoder

Message = TypeVar("Message")


def newest(codec: Decoder, records: Iterable[Record], kind: type[Message]) -> list[Message]:
    """The newest readable message under each key; keys whose newest record is a tombstone are gone."""
    last = {record.key: record.value for record in records}
    found = []
    for value in last.values():
        try:
            message = codec.decode(value) if value is not None else None
        except FormatError:
            continue
        if isinstance(message, kind):
            found.append(message)
    return found
